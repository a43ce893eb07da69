package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"parley.internal/gateway/moderator"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/moderation"
)

// A moderator requests a ban from a client, and a time-out by a command in Twitch's chat. Twitch must execute each
// command once. A request without permission becomes a dead letter.
func TestModerationCommandsRunOnceOnTwitch(t *testing.T) {
	t.Parallel()
	seed := filepath.Join(t.TempDir(), "seed.yaml")
	if err := os.WriteFile(seed, []byte(`
users:
  twitch:1001: {displayName: streamer}
  twitch:1002: {displayName: elsewhere}
  twitch:1003: {displayName: mod}
  twitch:1004: {displayName: bob}
  twitch:1005: {displayName: carl}
  api-gateway:eve: {roles: [moderator]}
  api-gateway:frank: {}
rules:
  timeout:
    enabled: true
    when: event.message.text.startsWith("!timeout ") && "moderator" in event.user.roles
    action:
      action: timeout
      login: '{{ event.message.text.split(" ")[1] }}'
      durationSeconds: '{{ event.message.text.split(" ")[2] }}'
      reason: asked for by {{ event.user.displayName }}
  ping:
    enabled: true
    when: event.message.text == "!ping"
    candidates: [{text: pong}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, []string{"LEASE_SEATS=1", "LEASE_TTL=1m"}, "--gateways", "2", "--seed", seed) // No channel moves: Twitch has no history.
	db := firestoreClient(t, p)
	p.call(t, http.MethodPut, "/twitch/channels/streamer/roles/mod", `{"moderator":true}`, nil)
	for _, channel := range []string{"streamer", "elsewhere"} {
		until(t, "the bot to be in "+channel, func() bool {
			var in struct{ Items []struct{ Login string } }
			p.call(t, http.MethodGet, "/twitch/channels/"+channel+"/chatters?wait=5", "", &in)
			return len(in.Items) == 1 && in.Items[0].Login == "parley"
		})
	}

	ask := func(c *client, id, userID string) {
		t.Helper()
		if err := c.conn.WriteJSON(map[string]any{
			"type": moderation.Type, "metadata": map[string]any{"id": id},
			"payload": map[string]any{"action": "ban", "channel": "twitch:streamer", "userId": userID, "reason": "spam"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	eve, frank, frank2 := connect(t, p, 0, "api-gateway:eve"), connect(t, p, 1, "api-gateway:frank"), connect(t, p, 0, "api-gateway:frank")
	ask(eve, "a1", "twitch:1004")
	ask(eve, "a1", "twitch:1004") // repeated, as after a lost connection
	for n := range 10 {
		ask(frank, fmt.Sprint("a2-", n), "twitch:1005")
		ask(frank2, fmt.Sprint("a3-", n), "twitch:1005")
	}
	for _, text := range []string{"!timeout @carl 60", "!ping"} { // the second is answered after the first
		for _, channel := range []string{"streamer", "elsewhere"} {
			var line struct{ ID string }
			p.call(t, http.MethodPost, "/twitch/channels/"+channel+"/messages", `{"user":"mod","text":"`+text+`"}`, &line)
		}
	}

	done := func(channel string) (all []string) {
		var actions struct {
			Items []struct {
				By, Action, User, Reason string
				Seconds                  int
			}
		}
		p.call(t, http.MethodGet, "/twitch/channels/"+channel+"/actions", "", &actions)
		for _, a := range actions.Items {
			all = append(all, fmt.Sprint(a.By, " ", a.Action, " ", a.User, " ", a.Seconds, " ", a.Reason))
		}
		slices.Sort(all)
		return all
	}
	want := []string{"parley ban bob 0 spam", "parley timeout carl 60 asked for by mod"}
	until(t, "Twitch to do both", func() bool { return len(done("streamer")) >= len(want) })
	var refused []deadletter.DeadLetter
	until(t, "the dead letter of the command without permission", func() bool {
		refused = nil
		err := deadletter.NewStore(db, time.Now).List(t.Context(), deadletter.Filter{Reason: deadletter.Forbidden}, func(l deadletter.DeadLetter) error {
			refused = append(refused, l)
			return nil
		})
		return err == nil && len(refused) == 1
	})
	until(t, "the answer to the next message in the other channel", func() bool {
		var said struct{ Items []struct{ Text string } }
		p.call(t, http.MethodGet, "/twitch/channels/elsewhere/messages?user=parley", "", &said)
		return len(said.Items) > 0 && said.Items[0].Text == "pong"
	})
	for _, id := range []string{"api-gateway:eve", "twitch:1003"} {
		commands := func() []delivery.Entry {
			return slices.DeleteFunc(deliveries(t, db, id), func(e delivery.Entry) bool { return e.Type != event.EgressEvent })
		}
		ds := commands()
		if len(ds) != 1 {
			t.Errorf("%d commands of %s; want 1, because a moderator of one channel has no permission in another channel", len(ds), id)
			continue
		}
		until(t, "the command to be settled", func() bool { return commands()[0].State == delivery.Delivered })
		r, err := moderator.NewRecords(db, "test", time.Now).Get(t.Context(), ds[0].ID)
		if err != nil || r.AskedBy.UserID != id || r.Outcome != moderator.Done && r.Outcome != moderator.Held {
			t.Errorf("record = %+v, %v", r, err)
		}
	}
	if got := done("streamer"); !slices.Equal(got, want) {
		t.Errorf("Twitch executed %q; want %q", got, want)
	}
	if got := done("elsewhere"); len(got) != 0 {
		t.Errorf("Twitch executed %q in the channel without permission", got)
	}
}
