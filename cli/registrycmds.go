package cli

// registryCommands are about registries: who one is there, what they hold, which to ask.
func registryCommands() []command { return nil }
