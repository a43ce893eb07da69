package twitch_test

import (
	"net/http"
	"testing"

	"github.com/nicklaw5/helix/v2"

	"parley.internal/emulator/twitch"
)

func chatMessage(w *world, text string) *helix.SendChatMessageParams {
	return &helix.SendChatMessageParams{BroadcasterID: w.channel.ID, SenderID: w.bot.ID, Message: text}
}

func TestHelixSendsChatMessages(t *testing.T) {
	w := newWorld(t)
	viewer := w.connect("viewer")
	said := w.say("viewer", "hi")
	p := chatMessage(w, "hello")
	p.ReplyParentMessageID = said.ID
	r, err := w.helix("bot").SendChatMessage(p)
	if err != nil || r.StatusCode != http.StatusOK || len(r.Data.Messages) != 1 || !r.Data.Messages[0].IsSent {
		t.Fatalf("SendChatMessage: %+v, %v", r, err)
	}
	next(t, viewer.heard) // what it said itself, elsewhere
	got := next(t, viewer.heard)
	if got.ID != r.Data.Messages[0].MessageID || got.Message != "@The_viewer hello" || got.Reply.ParentMsgID != said.ID {
		t.Errorf("the viewer heard %+v", got)
	}
	if l := w.Said("streamer")[1]; l.Via != twitch.ViaHelix || l.Text != "hello" || l.ReplyTo != said.ID {
		t.Errorf("the channel received %+v", l)
	}
	if r.GetRateLimit() != 800 || r.GetRateLimitRemaining() != 799 {
		t.Errorf("the rate limit is %d of %d", r.GetRateLimitRemaining(), r.GetRateLimit())
	}
}
