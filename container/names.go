package container

import (
	"math/rand/v2"
	"strconv"
	"strings"
)

// Names for containers that were given none: how the weather is, and a ship.
const (
	moods = "amber brisk calm clear cloudy crisp dawning dewy dusky fair foggy fresh frosty gentle gleaming golden " +
		"hazy icy lucid mellow mild misty moonlit quiet rainy roaring salty serene shining silent silver snowy " +
		"starry steady still stormy sunny swift tidal tranquil warm windy"
	vessels = "ark barge bark brig canoe caravel carrack catamaran clipper coaster cog collier corvette cutter dhow " +
		"dinghy dory ferry frigate galleon galley gig hoy junk kayak keelboat ketch launch lighter lugger packet pinnace " +
		"punt raft sampan schooner scow shallop skiff sloop tender trawler trimaran wherry yacht yawl"
)

// randomName makes up a name; after some tries it adds a number.
func randomName(try int) string {
	a, b := strings.Fields(moods), strings.Fields(vessels)
	name := a[rand.IntN(len(a))] + "_" + b[rand.IntN(len(b))]
	if try > 5 {
		name += strconv.Itoa(rand.IntN(10 * (try + 1)))
	}
	return name
}
