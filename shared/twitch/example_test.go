package twitch_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"parley.internal/shared/credential"
	"parley.internal/shared/twitch"
)

// A chat message that Twitch's moderation holds back: the reason is documented, and Twitch's code is in the text.
func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"data":[{"message_id":"","is_sent":false,"drop_reason":{"code":"msg_rejected","message":"Being checked."}}]}`)
	}))
	defer server.Close()

	client := twitch.New(twitch.Config{URL: server.URL, ClientID: "parley"})
	token := credential.Token{Access: credential.NewSecret("secret")}
	_, failed := client.SendChat(context.Background(), token, twitch.ChatMessage{BroadcasterID: "1", SenderID: "2", Text: "hello"})
	fmt.Println(failed.Outcome == twitch.Refused, failed.Reason)
	fmt.Println(failed)

	// Output:
	// true platform_refused
	// refused by Twitch: msg_rejected: Being checked.
}
