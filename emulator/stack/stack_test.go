package stack_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"parley.internal/emulator/discord"
	"parley.internal/emulator/stack"
	"parley.internal/emulator/twitch"
	"parley.internal/shared/answer"
)

// A process can have only one stack, so one test covers everything that needs a stack.
func TestQuestionsOnAllPlatformsAreAnswered(t *testing.T) {
	source, err := os.ReadFile("../seed.yaml")
	if err != nil {
		t.Fatal(err)
	}
	seed, err := stack.ParseSeed(source)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	s, err := stack.Start(ctx, stack.Options{
		Gateways: 3, Listen: "127.0.0.1:0", PubSub: stack.Embedded, Firestore: stack.Embedded, Seed: seed, Platforms: true,
		Environ: append(os.Environ(), "LEASE_SEATS=1", "LEASE_TTL=1m"), // no channel moves during the test: Twitch has no history
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)), Progress: func(string) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("stop: %v", err)
		}
	}()
	await := func(what string, wait func(context.Context, func() bool) error, holds func() bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := wait(ctx, holds); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}

	tw, dc := s.Platforms.Twitch, s.Platforms.Discord
	await("the bot is in Ada's channel", tw.Await, func() bool { return len(tw.Joined("ada")) > 0 })
	question, err := tw.Say("ada", "bruno", "!ask how are you?")
	if err != nil {
		t.Fatal(err)
	}
	lines := func() (own []twitch.Line) {
		for _, l := range tw.Said("ada") {
			if l.Login == "parley" {
				own = append(own, l)
			}
		}
		return own
	}
	await("an answer on Twitch", tw.Await, func() bool { return len(lines()) > 0 })
	if l := lines()[0]; !strings.Contains(l.Text, "Bruno") || l.ReplyTo != question.ID {
		t.Errorf("answered %+v; want a reply to %s that knows Bruno", l, question.ID)
	}

	await("the bot is on Discord", dc.Await, func() bool { return dc.Connected("9000") > 0 })
	asked, err := dc.Say("3001", "2002", "@everyone !roles and @parley")
	if err != nil {
		t.Fatal(err)
	}
	answers := func() (own []discord.Message) {
		for _, m := range dc.Said("3001") {
			if m.Author.ID == "9000" {
				own = append(own, m)
			}
		}
		return own
	}
	await("an answer on Discord", dc.Await, func() bool { return len(answers()) > 0 })
	if m := answers()[0]; !strings.Contains(m.Text, "Dana") || m.ReplyTo != asked.ID || len(m.Pings) > 0 {
		t.Errorf("answered %+v; want a reply to %s that knows Dana and pings no user", m, asked.ID)
	}

	// Three instances run, and one of them answers.
	if _, err := tw.Say("ada", "bruno", "!help"); err != nil {
		t.Fatal(err)
	}
	await("a second answer on Twitch", tw.Await, func() bool { return len(lines()) > 1 })
	if n := len(lines()); n != 2 {
		t.Errorf("the bot posted %d lines for two questions", n)
	}

	// Whispers between Ada and the bot: a personality's answer, an answer too long for a stranger, and a rule's answer.
	await("the subscription to whispers", tw.Await, func() bool {
		return slices.ContainsFunc(tw.Subscriptions(), func(s twitch.Subscription) bool {
			return s.Type == "user.whisper.message" && s.Status == "enabled"
		})
	})
	for i, q := range []struct {
		text, answer string
		atLeast      int // characters
	}{
		{"!ask how are you?", "Ada, you asked: “how are you?”", 0},
		{"!ask " + strings.Repeat("why ", 150), "Ada, you asked: “why why", 501},
		{"!help", "Hello Ada: ", 0},
	} {
		if _, err := tw.Whisper("ada", "parley", q.text); err != nil {
			t.Fatal(err)
		}
		await("a whispered answer to "+q.text, tw.Await, func() bool { return len(tw.Whispers("ada")) > i })
		got := tw.Whispers("ada")
		if w := got[i]; len(got) != i+1 || w.From != "parley" || !strings.HasPrefix(w.Text, q.answer) || answer.UTF16Length(w.Text) < q.atLeast || strings.HasSuffix(w.Text, "…") {
			t.Errorf("whispered %+v; want one more, which begins with %q and is at least %d characters long", got, q.answer, q.atLeast)
		}
	}
	if n := len(tw.Whispers("parley")); n != 3 || len(lines()) != 2 {
		t.Errorf("the bot received %d whispers and posted %d lines in the channel; want 3 and 2", n, len(lines()))
	}

	// Bruno's channel, #games and the room games relay each other's messages.
	room, _, err := websocket.DefaultDialer.DialContext(ctx, s.Gateways[0].WS, http.Header{"Authorization": {"Bearer " + s.Tokens["api-gateway:eve"]}})
	if err != nil {
		t.Fatal(err)
	}
	defer room.Close()
	next := func(kind string) string {
		t.Helper()
		var frame struct {
			Type    string
			Payload struct{ Text string }
		}
		err := errors.Join(room.SetReadDeadline(time.Now().Add(time.Minute)), room.ReadJSON(&frame))
		if err != nil || frame.Type != kind {
			t.Fatalf("frame %+v, %v; want a %s", frame, err, kind)
		}
		return answer.StripMarks(frame.Payload.Text)
	}
	send := func(frame string) {
		t.Helper()
		if err := room.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
			t.Fatal(err)
		}
	}
	next("connection.ready")
	send(`{"type":"room.join","payload":{"room":"games"}}`)
	next("room.joined")
	if _, err := tw.Say("bruno", "ada", "who plays?"); err != nil {
		t.Fatal(err)
	}
	if got := next("chat.message.received"); got != "[twitch] Ada: who plays?" {
		t.Errorf("the room received %q", got)
	}
	onDiscord := func() (texts []string) {
		for _, m := range dc.Said("3002") {
			texts = append(texts, answer.StripMarks(m.Text))
		}
		return texts
	}
	await("Ada's line on Discord", dc.Await, func() bool { return len(onDiscord()) > 0 })
	send(`{"type":"chat.message.send","payload":{"text":"I do","room":"games"},"metadata":{"id":"m1"}}`)
	await("both lines on Discord", dc.Await, func() bool { return len(onDiscord()) > 1 })
	if got := onDiscord(); !slices.Equal(got, []string{"[twitch] Ada: who plays?", "[web] Eve: I do"}) {
		t.Errorf("Discord received %q", got)
	}
	onTwitch := func() (texts []string) {
		for _, l := range tw.Said("bruno") {
			texts = append(texts, answer.StripMarks(l.Text))
		}
		return texts
	}
	await("Eve's line on Twitch", tw.Await, func() bool { return len(onTwitch()) > 1 })
	question, err = tw.Say("bruno", "bruno", "!help") // answered in the channel, and not relayed
	if err != nil {
		t.Fatal(err)
	}
	await("an answer in Bruno's channel", tw.Await, func() bool { return len(onTwitch()) > 3 })
	if l := tw.Said("bruno")[3]; onTwitch()[1] != "[web] Eve: I do" || l.ReplyTo != question.ID {
		t.Errorf("Twitch received %q; want Eve's line and an answer", onTwitch())
	}
}
