package registry

import (
	"net/http"
	"strings"
)

// A challenge is one way of authentication that a server offers in
// WWW-Authenticate (RFC 9110, 11.6.1).
type challenge struct {
	scheme string // lower case: basic, bearer
	params map[string]string
}

// maxChallenge bounds what is read of a server's WWW-Authenticate headers.
const maxChallenge = 8 << 10

// pickChallenge returns the challenge to answer: Bearer where offered, as
// Docker does, else Basic. nil: there is none that tug knows.
func pickChallenge(h http.Header) *challenge {
	var basic *challenge
	for _, v := range h.Values("WWW-Authenticate") {
		for _, ch := range parseChallenges(v) {
			switch {
			case ch.scheme == "bearer" && ch.params["realm"] != "":
				return &ch
			case ch.scheme == "basic" && basic == nil:
				basic = &ch
			}
		}
	}
	return basic
}

// parseChallenges reads one header, which may hold several challenges. What it
// does not understand ends it.
func parseChallenges(s string) []challenge {
	if len(s) > maxChallenge {
		return nil
	}
	var all []challenge
	for {
		s = strings.TrimLeft(s, " \t,")
		word, rest := cutToken(s)
		if word == "" {
			return all
		}
		value, isParam := strings.CutPrefix(strings.TrimLeft(rest, " \t"), "=")
		if !isParam {
			all = append(all, challenge{scheme: strings.ToLower(word), params: map[string]string{}})
			s = rest
			continue
		}
		if len(all) == 0 {
			return nil
		}
		v, rest, ok := cutValue(strings.TrimLeft(value, " \t"))
		if !ok {
			return all
		}
		params, name := all[len(all)-1].params, strings.ToLower(word)
		if _, twice := params[name]; !twice {
			params[name] = v
		}
		s = rest
	}
}

// cutToken splits s behind the token (RFC 9110, 5.6.2) it begins with.
func cutToken(s string) (token, rest string) {
	i := strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
	if i < 0 {
		i = len(s)
	}
	return s[:i], s[i:]
}

// cutValue splits s behind the token or quoted string it begins with.
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = cutToken(s)
		return value, rest, true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}
