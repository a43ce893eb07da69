package discord_test

import (
	"fmt"

	"parley.internal/gateway/discord"
)

func ExampleChannel() {
	fmt.Println(discord.Channel("41771983423143937"))
	// Output: discord:41771983423143937
}
