package enrichment_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/moderation"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

// wants returns an event with a requested action, in the form of a WebSocket client's frame.
func wants(id, user, payload string) *event.Event {
	e := says(id, user, "")
	e.Type, e.Message, e.Channel = moderation.Type, nil, "twitch:streamer"
	if payload != "" {
		e.Payload = []byte(payload)
	}
	return e
}

const aBan = `{"action":"ban","channel":"twitch:streamer","userId":"twitch:666","reason":"spam"}`

// commands returns the commands sent.
func (r *rig) commands() (commands []moderation.Command, keys []string) {
	r.t.Helper()
	for _, out := range r.bus.sent[topology.Egress] {
		if out.Event.Type != moderation.Type {
			continue
		}
		o, err := moderation.Read(out.Event)
		if err != nil {
			r.t.Fatal(err)
		}
		commands, keys = append(commands, o), append(keys, out.IdempotencyKey)
	}
	return commands, keys
}

// refused returns the reason of a dead-letter error.
func refused(t *testing.T, err error) (deadletter.Reason, string) {
	t.Helper()
	d, ok := errors.AsType[*deadletter.Error](err)
	if !ok {
		t.Fatalf("error = %v; want a dead letter", err)
	}
	return d.Reason, d.Err.Error()
}

func TestAuthorization(t *testing.T) {
	// A request from the channel itself: no gateway sends such an event today, but a platform's moderation events may.
	there := func(user, channel, payload string) *event.Event {
		e := onTwitch("x", user, "", payload)
		e.Type, e.Payload, e.Channel = moderation.Type, []byte(aBan), channel
		return e
	}
	manual := func(roles ...string) map[string]any {
		return map[string]any{"roles": roles, "rolesMeta": map[string]any{"manual": roles}}
	}
	twitch := map[string]any{"roles": []string{"moderator"}, "rolesMeta": map[string]any{"twitch": []string{"moderator"}}}
	for _, tt := range []struct {
		name string
		doc  map[string]any // of the user; nil for none
		in   *event.Event
		want string // the permission; empty for forbidden
	}{
		{"a moderator by hand", manual("moderator"), wants("", "twitch:5", aBan), "moderator by hand"},
		{"a broadcaster by hand", manual("broadcaster"), wants("", "eve", aBan), "broadcaster by hand"},
		{"a role that no source explains", map[string]any{"roles": []string{"moderator"}}, wants("", "eve", aBan), "moderator by hand"},
		{"by hand, and by the platform", map[string]any{"roles": []string{"moderator"}, "rolesMeta": map[string]any{"twitch": []string{"moderator"}, "manual": []string{"moderator"}}},
			wants("", "twitch:5", aBan), "moderator by hand"},
		{"another role by hand", manual("friend", "vip"), wants("", "twitch:5", aBan), ""},
		{"a user without roles", map[string]any{}, wants("", "twitch:5", aBan), ""},
		{"a user never seen before", nil, wants("", "twitch:5", aBan), ""},
		{"no user id", nil, wants("", "", aBan), ""},
		{"a bad id", nil, wants("", "../../x", aBan), ""},
		{"a moderator of some channel, by way of a WebSocket", twitch, wants("", "twitch:5", aBan), ""},
		{"a moderator of the channel, in it", nil, there("5", "twitch:streamer", `"isMod":true`), "moderator of twitch:streamer"},
		{"its broadcaster, in it", nil, there("5", "twitch:streamer", `"isMod":false,"badges":"broadcaster/1"`), "broadcaster of twitch:streamer"},
		{"a viewer, in it", nil, there("5", "twitch:streamer", `"isMod":false,"badges":"vip/1"`), ""},
		{"a moderator of another channel, there", nil, there("5", "twitch:other", `"isMod":true`), ""},
		{"who was a moderator in another channel, here", twitch, there("5", "twitch:streamer", `"isMod":false`), ""},
		{"who was a moderator in another channel, in words that tell no role", twitch, there("5", "twitch:streamer", `"color":"red"`), ""},
		{"another platform's moderator in a channel of that name", nil, func() *event.Event {
			e := there("5", "twitch:streamer", `"roles":["mods"]`)
			e.Source = "ingress.discord"
			return e
		}(), ""},
		{"a claimed role", map[string]any{}, func() *event.Event {
			e := wants("", "twitch:5", aBan)
			e.User = &event.User{ID: "twitch:5", Roles: []string{"moderator"}, RolesMeta: map[string][]string{"manual": {"moderator"}}}
			return e
		}(), ""},
		{"a claimed payload of the platform", map[string]any{}, func() *event.Event {
			e := wants("", "twitch:5", aBan)
			e.Message = &event.Message{RawPlatformPayload: []byte(`{"userId":"5","isMod":true}`)}
			return e
		}(), ""},
		{"a moderator who is banned", map[string]any{"roles": []string{"moderator"}, "status": "banned"}, wants("", "twitch:5", aBan), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onFirestore(t, func(r *rig) {
				if tt.doc != nil {
					for _, id := range []string{"twitch:5", "api-gateway:eve", "discord:5"} {
						r.put("users/"+id, tt.doc)
					}
				}
				tt.in.CorrelationID = "c1"
				err := r.try(tt.in)
				commands, keys := r.commands()
				if n := len(r.bus.sent[topology.Enriched]); n != 1 {
					t.Errorf("%d events for observers; want 1", n)
				}
				if tt.want == "" {
					if reason, why := refused(t, err); reason != deadletter.Forbidden || why == "" || len(commands) != 0 {
						t.Errorf("%s: %s, with %d commands; want %s", reason, why, len(commands), deadletter.Forbidden)
					}
					return
				}
				if err != nil || len(commands) != 1 {
					t.Fatalf("%d commands, %v", len(commands), err)
				}
				o := commands[0]
				if o.String() != "ban twitch:666 in twitch:streamer" || o.Reason != "spam" || o.By.Right != tt.want || o.By.UserID == "" || o.By.Source != tt.in.Source || o.By.Channel != tt.in.Channel {
					t.Errorf("command = %+v; want the permission %q", o, tt.want)
				}
				out := r.bus.sent[topology.Egress][0].Event
				if out.Channel != "twitch:streamer" || out.Egress.Destination != "twitch" || out.Egress.Type != event.EgressEvent {
					t.Errorf("egress event = %+v", out)
				}
				e, err := r.ledger.Get(t.Context(), keys[0])
				if err != nil || e.State != delivery.Pending || e.Channel != "twitch:streamer" || e.Destination != "twitch" || e.Type != event.EgressEvent {
					t.Errorf("entry = %+v, %v", e, err)
				}
			})
		})
	}
}

// Anyone can request actions without permission. The requests of a user in an hour share a dead letter, and each is a
// warning in the log.
func TestForbiddenRequestsOfAnHourShareADeadLetter(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.put("users/twitch:5", map[string]any{"roles": []string{"moderator"}, "status": "blocked"})
		id := func(id, user string) string {
			t.Helper()
			d, ok := errors.AsType[*deadletter.Error](r.try(wants(id, user, aBan)))
			if !ok || d.Reason != deadletter.Forbidden {
				t.Fatalf("%s of %s: %+v; want %s", id, user, d, deadletter.Forbidden)
			}
			return d.ID
		}
		want := map[string]string{} // the dead letters, by user
		for _, user := range []string{"api-gateway:eve", "twitch:5", "twitch:6", "", "../../x"} {
			want[user] = id("first "+user, user)
		}
		const n = 20
		for i := range n {
			for user, first := range want {
				if got := id(fmt.Sprint(i, user), user); got != first || got == "" {
					t.Errorf("request %d of %q: dead letter %s; want %s", i, user, got, first)
				}
			}
		}
		distinct := map[string]bool{}
		for _, id := range want {
			distinct[id] = true
		}
		if len(distinct) != 4 || want[""] != want["../../x"] {
			t.Errorf("dead letters %v; want one for each user, and one for the unknown users", want)
		}
		if want["twitch:6"] != deadletter.Hourly(deadletter.Forbidden, errors.New("x"), "twitch:6", r.now).ID {
			t.Error("not the dead letter recorded by a gateway")
		}
		if got := strings.Count(r.log.String(), `level=WARN msg="moderation request refused"`); got != (n+1)*len(want) {
			t.Errorf("%d warnings; want %d", got, (n+1)*len(want))
		}
		if strings.Contains(r.log.String(), "level=ERROR") {
			t.Errorf("errors in the log: %s", r.log)
		}

		published := r.now
		r.now = r.now.Add(time.Hour)
		if id("later", "twitch:6") == want["twitch:6"] {
			t.Error("the next hour has no dead letter of its own")
		}
		// a redelivery in the next hour is the same failure
		err := r.Enrich(t.Context(), bus.Incoming{Event: wants("first twitch:6", "twitch:6", aBan), Published: published})
		if d, ok := errors.AsType[*deadletter.Error](err); !ok || d.ID != want["twitch:6"] {
			t.Errorf("a redelivery: %+v; want the dead letter %s", d, want["twitch:6"])
		}
	})
}

// A lost action of a rule is not hidden in the dead letter of another request.
func TestForbiddenRequestWithALostActionHasItsOwnDeadLetter(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("timeout", map[string]any{"when": "true", "action": map[string]any{"action": "timeout", "userId": "twitch:1", "durationSeconds": "{{ 0 }}"}})
		d, ok := errors.AsType[*deadletter.Error](r.try(wants("c1", "twitch:6", aBan)))
		if !ok || d.ID != "" || d.Reason != deadletter.Forbidden || !strings.Contains(d.Error(), "rule timeout: ") {
			t.Errorf("dead letter %+v; want one of the event", d)
		}
	})
}

func TestMalformedActionIsDeadLettered(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.put("users/twitch:5", map[string]any{"roles": []string{"moderator"}})
		for payload, field := range map[string]string{
			`{"action":"ban","userId":"discord:1"}`:      "payload.userId",
			`{"action":"timeout","userId":"twitch:1"}`:   "payload.durationSeconds",
			`{"action":"ban","userId":"twitch:1","x":1}`: "payload.x",
			``: "payload",
		} {
			if reason, why := refused(t, r.try(wants("c"+payload, "twitch:5", payload))); reason != deadletter.InvalidEvent || !strings.Contains(why, field+": ") {
				t.Errorf("%s: %s: %s; want what is wrong with %s", payload, reason, why, field)
			}
		}
		if commands, _ := r.commands(); len(commands) != 0 {
			t.Errorf("%d commands", len(commands))
		}
	})
}

// A redelivery keeps a granted permission. A refusal is decided again, so that the event can be redriven.
func TestRedeliveredRequestIsOneCommand(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.put("users/twitch:5", map[string]any{"roles": []string{"moderator"}, "rolesMeta": map[string]any{"manual": []string{"moderator"}}})
		r.bus.fail[topology.Egress] = 1
		e := wants("c1", "twitch:5", aBan)
		if err := r.try(e); err == nil {
			t.Fatal("no error, though it could not be published")
		}
		r.change("twitch:5", func(u *store.User) { u.Roles, u.RolesMeta = nil, nil })
		for range 2 {
			if err := r.try(e); err != nil {
				t.Fatal(err)
			}
		}
		commands, keys := r.commands()
		if len(commands) != 2 || keys[0] != keys[1] || keys[0] != delivery.ID("c1", "action") || commands[0].By.Right != "moderator by hand" {
			t.Errorf("commands = %+v, keys = %v; want one delivery, published twice", commands, keys)
		}

		later := wants("c2", "twitch:5", aBan)
		if reason, _ := refused(t, r.try(later)); reason != deadletter.Forbidden {
			t.Errorf("reason = %s", reason)
		}
		r.change("twitch:5", func(u *store.User) { u.Roles = []string{"moderator"} })
		if err := r.try(later); err != nil {
			t.Errorf("redriven after the role was given: %v", err)
		}
	})
}

func TestRulesSendCommands(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("timeout", map[string]any{
			"when":       `event.message.text.startsWith("!timeout ") && "moderator" in event.user.roles`,
			"action":     map[string]any{"action": "timeout", "login": `{{ event.message.text.split(" ")[1] }}`, "durationSeconds": `{{ event.message.text.split(" ")[2] }}`},
			"candidates": textCandidate("Done."),
		})
		r.rule("filter", map[string]any{
			"when":   `event.message.text.contains("badword")`,
			"action": map[string]any{"action": "delete", "messageId": "{{ event.message.id }}"},
		})
		r.rule("strict", map[string]any{
			"when":   `event.message.text.contains("badword")`,
			"action": map[string]any{"action": "timeout", "userId": "{{ event.userId }}", "durationSeconds": 10, "reason": "mind your language"},
		})
		in := func(id, text, payload string) *event.Event {
			e := onTwitch(id, "5", text, payload)
			e.Channel = "twitch:streamer"
			return e
		}
		for _, e := range []*event.Event{
			in("c1", "!timeout @Bob 60", `"isMod":true`),
			in("c2", "!timeout @Bob 60", `"isMod":false`), // the role is lost
			in("c4", "a badword", `"isMod":false`),
		} {
			for range 2 {
				if err := r.try(e); err != nil {
					t.Fatal(err)
				}
			}
		}
		commands, keys := r.commands()
		got := map[string]string{}
		for i, o := range commands {
			got[keys[i]] = o.String() + " by " + o.By.UserID + ", " + o.By.Right
			if o.By.Rule == "" || "rule "+o.By.Rule != o.By.Right {
				t.Errorf("asked by %+v; want the rule", o.By)
			}
		}
		want := map[string]string{
			delivery.ID("c1", "action:timeout"): "timeout twitch @bob in twitch:streamer for 60 s by twitch:5, rule timeout",
			delivery.ID("c4", "action:filter"):  "delete message m-c4 in twitch:streamer by twitch:5, rule filter",
			delivery.ID("c4", "action:strict"):  "timeout twitch:5 in twitch:streamer for 10 s by twitch:5, rule strict",
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("commands = %v; want %v", got, want)
		}
		if texts := r.answers(); len(texts) != len(commands)+2 { // the commands, which say nothing, and the answer twice
			t.Errorf("answers = %q", texts)
		}
	})
}

// An action of a rule that can't be made is a dead letter, with the rule and the field. Other rules are not affected.
func TestRuleActionsThatCannotBeMade(t *testing.T) {
	onFirestore(t, func(r *rig) {
		action := func(seconds any) map[string]any {
			return map[string]any{
				"when":       `event.message.text.startsWith("!timeout ")`,
				"action":     map[string]any{"action": "timeout", "userId": "{{ event.userId }}", "durationSeconds": seconds},
				"candidates": textCandidate("Done."),
			}
		}
		r.rule("timeout", action(`{{ event.payload.seconds }}`))
		r.rule("filter", map[string]any{"when": `event.message.text.contains("badword")`, "action": map[string]any{"action": "delete", "messageId": "{{ event.message.id }}"}})
		n := 0
		for seconds, field := range map[string]string{
			"1209601": "action: durationSeconds: not between", "1e400": "action.durationSeconds: ", "0": "action: durationSeconds: not between",
			`"long"`: "action: durationSeconds: not a whole number", "null": "action: durationSeconds: missing", "0.5": "action: durationSeconds: not a whole number",
			"123456789012345678901234567890": "action: durationSeconds: not between", "[]": "action.durationSeconds: ",
		} {
			n++
			e := onTwitch(fmt.Sprint("c", n), "5", "!timeout badword", `"isMod":true`)
			e.Channel, e.Payload = "twitch:streamer", []byte(`{"seconds":`+seconds+`}`)
			for range 2 { // a redelivery has the same outcome
				reason, why := refused(t, r.try(e))
				if reason != deadletter.InvalidEvent || !strings.HasPrefix(why, "rule timeout: "+field) {
					t.Errorf("%s: %s: %s; want the rule and %s", seconds, reason, why, field)
				}
			}
		}
		commands, _ := r.commands()
		for _, c := range commands {
			if c.By.Rule != "filter" {
				t.Errorf("command of %+v", c.By)
			}
		}
		if len(commands) != 2*8 {
			t.Errorf("%d commands; want those of the other rule", len(commands))
		}
	})
	onFirestore(t, func(r *rig) { // the longest time-out of Twitch is done
		r.rule("timeout", map[string]any{"when": "true", "action": map[string]any{"action": "timeout", "userId": "{{ event.userId }}", "durationSeconds": "{{ event.payload.seconds }}"}})
		for i, seconds := range []string{"1209600", "1209600.0", "1.2096e6", `"1209600"`} {
			e := onTwitch(fmt.Sprint("c", i), "5", "hello", `"isMod":true`)
			e.Channel, e.Payload = "twitch:streamer", []byte(`{"seconds":`+seconds+`}`)
			if err := r.try(e); err != nil {
				t.Errorf("%s: %v", seconds, err)
			}
		}
		commands, _ := r.commands()
		for _, c := range commands {
			if c.Seconds != 1209600 {
				t.Errorf("command = %+v", c)
			}
		}
		if len(commands) != 4 {
			t.Errorf("%d commands; want 4", len(commands))
		}
	})
}

// An event whose action could not be made is redriven after the rule was repaired.
func TestRepairedActionIsDoneAfterARedrive(t *testing.T) {
	onFirestore(t, func(r *rig) {
		rule := map[string]any{"when": "true", "action": map[string]any{"action": "timeout", "userId": "{{ event.userId }}", "durationSeconds": "{{ event.payload.seconds }}"}}
		r.rule("timeout", rule)
		e := onTwitch("c1", "5", "hello", `"isMod":true`)
		e.Channel, e.Payload = "twitch:streamer", []byte(`{"seconds":1209601}`)
		refused(t, r.try(e))
		rule["action"].(map[string]any)["durationSeconds"] = 600
		r.rule("timeout", rule)
		r.forget() // the rules are read again
		if err := r.try(e); err != nil {
			t.Fatal(err)
		}
		if commands, keys := r.commands(); len(commands) != 1 || commands[0].Seconds != 600 || keys[0] != delivery.ID("c1", "action:timeout") {
			t.Errorf("commands = %+v", commands)
		}
	})
}

func TestRetryableErrorTakesPrecedenceOverRefusal(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.bus.fail[topology.Enriched] = 1
		e := wants("c1", "twitch:5", aBan)
		err := r.try(e)
		if _, dead := errors.AsType[*deadletter.Error](err); err == nil || dead {
			t.Errorf("error = %v; want one that has it delivered again", err)
		}
		if reason, _ := refused(t, r.try(e)); reason != deadletter.Forbidden {
			t.Errorf("then: %s", reason)
		}
	})
}
