package moderation_test

import (
	"fmt"

	"parley.internal/shared/moderation"
)

func ExampleParse() {
	a, err := moderation.Parse([]byte(`{"action":"timeout","userId":"7","durationSeconds":600,"reason":"spam"}`), "twitch:streamer")
	fmt.Println(a, err)
	_, err = moderation.Parse([]byte(`{"action":"ban","login":"troll"}`), "discord:42")
	fmt.Println(err)
	// Output:
	// timeout twitch:7 in twitch:streamer for 600 s <nil>
	// payload.login: only for Twitch
}
