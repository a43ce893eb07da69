package enrichment_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sync/errgroup"

	"parley.internal/emulator/emulatortest"
	firestoreserver "parley.internal/emulator/firestore"
	"parley.internal/functions/enrichment"
	"parley.internal/shared/answer"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

// publisher records messages by topic, and fails the configured number of times.
type publisher struct {
	mu   sync.Mutex
	fail map[topology.Topic]int
	sent map[topology.Topic][]bus.Outgoing
}

func (p *publisher) Publish(_ context.Context, t topology.Topic, out bus.Outgoing) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail[t] > 0 {
		p.fail[t]--
		return errors.New("bus is down")
	}
	if _, err := event.Encode(out.Event); err != nil {
		return fmt.Errorf("publish to %s: %w", t, err)
	}
	p.sent[t] = append(p.sent[t], out)
	return nil
}

// meddling is a store with hooks before and after the write of a user.
type meddling struct {
	*store.Store
	before func()       // nil for nothing
	after  func() error // the result of a write that succeeded; nil for success
	puts   atomic.Int64
}

func (m *meddling) PutUser(ctx context.Context, id identity.UserID, u store.User, v store.Version) error {
	m.puts.Add(1)
	if m.before != nil {
		m.before()
	}
	if err := m.Store.PutUser(ctx, id, u, v); err != nil || m.after == nil {
		return err
	}
	return m.after()
}

// rig is a function with its dependencies.
type rig struct {
	*enrichment.Function
	t      *testing.T
	bus    *publisher
	client *firestore.Client
	store  *meddling
	ledger *delivery.Ledger
	log    *bytes.Buffer
	now    time.Time
	cfg    enrichment.Config
}

var start = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func newRig(t *testing.T, env emulatortest.Env, environ ...string) *rig {
	t.Helper()
	cfg, err := config.Load[enrichment.Config](append([]string{"GOOGLE_CLOUD_PROJECT=" + env.Project, "DISCORD_ROLES=Mods=moderator"}, environ...))
	if err != nil {
		t.Fatal(err)
	}
	client, err := store.Connect(t.Context(), env.Deployment(), env.FirestoreOption(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return assemble(t, client, cfg)
}

func assemble(t *testing.T, client *firestore.Client, cfg enrichment.Config) *rig {
	r := &rig{
		t: t, client: client, store: &meddling{Store: store.New(client)}, log: &bytes.Buffer{}, now: start, cfg: cfg,
		bus: &publisher{fail: map[topology.Topic]int{}, sent: map[topology.Topic][]bus.Outgoing{}},
	}
	clock := func() time.Time { return r.now }
	r.ledger = delivery.NewLedger(client, "test", clock)
	r.Function = enrichment.New(enrichment.Deps{
		Config: cfg, Store: r.store, Bus: r.bus, Sender: delivery.NewSender(r.ledger, r.bus, cfg.Egress, clock),
		Now: clock, Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	return r
}

// another returns a second instance of the function with the same Firestore.
func (r *rig) another() *rig { return assemble(r.t, r.client, r.cfg) }

// onFirestore runs a test with a function on every Firestore emulator.
func onFirestore(t *testing.T, run func(r *rig), environ ...string) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) { run(newRig(t, env, environ...)) })
}

func (r *rig) put(path string, doc any) {
	r.t.Helper()
	if _, err := r.client.Doc(path).Set(r.t.Context(), doc); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) rule(id string, fields map[string]any) {
	r.t.Helper()
	all := map[string]any{"enabled": true, "priority": 10, "when": "true"}
	for name, value := range fields {
		all[name] = value
	}
	r.put("rules/"+id, all)
}

func (r *rig) user(id string) store.User {
	r.t.Helper()
	u, _ := r.read(id)
	return u
}

func (r *rig) read(id string) (store.User, store.Version) {
	r.t.Helper()
	u, version, err := r.store.User(r.t.Context(), r.parse(id))
	if err != nil {
		r.t.Fatal(err)
	}
	return u, version
}

func (r *rig) parse(id string) identity.UserID {
	r.t.Helper()
	parsed, err := identity.Parse(id)
	if err != nil {
		r.t.Fatal(err)
	}
	return parsed
}

// change edits a user's document outside the function.
func (r *rig) change(id string, edit func(*store.User)) {
	r.t.Helper()
	u, version := r.read(id)
	edit(&u)
	if err := r.store.Store.PutUser(r.t.Context(), r.parse(id), u, version); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) try(e *event.Event) error {
	return r.Enrich(r.t.Context(), bus.Incoming{Event: e, ID: "1", Published: r.now})
}

// enrich handles an event and returns the published event.
func (r *rig) enrich(e *event.Event) *event.Event {
	r.t.Helper()
	before := len(r.bus.sent[topology.Enriched])
	if err := r.try(e); err != nil {
		r.t.Fatal(err)
	}
	sent := r.bus.sent[topology.Enriched]
	if len(sent) != before+1 {
		r.t.Fatalf("published %d events; want 1", len(sent)-before)
	}
	return sent[before].Event
}

func (r *rig) answers() []string {
	var texts []string
	for _, out := range r.bus.sent[topology.Egress] {
		texts = append(texts, answer.Text(out.Event))
	}
	return texts
}

// says returns a message of a WebSocket client.
func says(id, user, text string) *event.Event {
	return &event.Event{
		V: event.Version, Source: "api-gateway", CorrelationID: id, Type: event.TypeChatMessage, UserID: user, Channel: "lobby",
		Auth: &event.Auth{Provider: "api-gateway"}, Egress: &event.Egress{Destination: "api-gateway"},
		Message: &event.Message{ID: "m-" + id, Role: event.RoleUser, Text: text},
	}
}

// onTwitch returns a message in the form of the Twitch ingress.
func onTwitch(id, user, text, payload string) *event.Event {
	return &event.Event{
		V: event.Version, Source: "ingress.twitch", CorrelationID: id, Type: event.TypeChatMessage, Channel: "#parley",
		Message: &event.Message{ID: "m-" + id, Role: event.RoleUser, Text: text, RawPlatformPayload: []byte(`{"userId":"` + user + `",` + payload + `}`)},
	}
}

func textCandidate(text string) []map[string]any { return []map[string]any{{"text": text}} }

func TestEventIsMatchedToPerson(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.put("users/twitch:123", map[string]any{
			"displayName": "Ada", "email": "ada@example.com", "notes": "Likes tea.", "tags": []string{"early-bird"}, "status": "active",
			"roles": []string{"friend"}, "favourite": "own field",
		})
		in := says("c1", "twitch:123", "hello")
		got := r.enrich(in)
		want := in.Clone()
		want.User = &event.User{
			ID: "twitch:123", Email: "ada@example.com", DisplayName: "Ada", Roles: []string{"friend"}, RolesMeta: map[string][]string{"manual": {"friend"}}, Status: "active", Notes: "Likes tea.",
			Tags: []string{"early-bird", "PROVIDER_TWITCH", "NEW_USER", "FIRST_ALLTIME_MESSAGE", "FIRST_SESSION_MESSAGE"},
		}
		want.Auth = &event.Auth{V: "1", Provider: "twitch", Method: "enrichment", Matched: true, UserRef: "users/twitch:123", At: start}
		want.RoutingSlip = []event.Step{{ID: "enrichment", Status: event.StepOK, Attempt: 1, StartedAt: start, EndedAt: start}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("event (-want +got):\n%s", diff)
		}
		if in.User != nil || in.RoutingSlip != nil {
			t.Error("the incoming event was changed")
		}

		u := r.user("twitch:123")
		if u.Provider != "twitch" || u.MessageCountAllTime != 1 || u.SessionCount != 1 || !u.FirstSeenAt.Equal(start) || !u.LastMessageAt.Equal(start) {
			t.Errorf("document = %+v", u)
		}
		if diff := cmp.Diff([]string{"early-bird"}, u.Tags); diff != "" {
			t.Errorf("the document's own tags (-want +got):\n%s", diff)
		}
		snap, err := r.client.Doc("users/twitch:123").Get(t.Context())
		if err != nil || snap.Data()["favourite"] != "own field" || snap.Data()["notes"] != "Likes tea." || snap.Data()["status"] != "active" {
			t.Errorf("an operator's fields: %v, %v", snap.Data(), err)
		}
		for _, id := range []string{"api-gateway:twitch:123", "api-gateway:123", "twitch:twitch:123"} {
			if u := r.user(id); !u.FirstSeenAt.IsZero() {
				t.Errorf("there is a document %s", id)
			}
		}
	})
}

func TestDocumentProviderTakesPrecedence(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.put("users/api-gateway:eve", map[string]any{"provider": "discord"})
		if got := r.enrich(says("c1", "eve", "hi")); got.Auth.Provider != "discord" || got.UserID != "api-gateway:eve" || got.User.Tags[0] != "PROVIDER_DISCORD" {
			t.Errorf("auth = %+v, user = %+v", got.Auth, got.User)
		}
	})
}

// An id may contain colons. A cut at the wrong colon would give the id of another user.
func TestIDKeepsItsColons(t *testing.T) {
	onFirestore(t, func(r *rig) {
		for in, want := range map[string]string{"team:7:ada": "api-gateway:team:7:ada", "discord:a:b": "discord:a:b", "twitch:1": "twitch:1"} {
			if got := r.enrich(says(in, in, "hi")); got.UserID != want || got.Auth.UserRef != "users/"+want {
				t.Errorf("%s became %s, %s; want %s", in, got.UserID, got.Auth.UserRef, want)
			}
		}
	})
}

func TestUnmatchedEventPasses(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.put("users/odd", map[string]any{"email": "odd@example.com"})
		for name, tt := range map[string]struct {
			user  *event.User
			id    string
			notes int
		}{
			"no id":                                 {nil, "", 0},
			"an e-mail of a document without an id": {&event.User{Email: "odd@example.com"}, "", 1},
			"an unknown e-mail":                     {&event.User{Email: "who@example.com", Roles: []string{"moderator"}}, "", 0},
			"a bad id":                              {nil, "../../tokens", 1},
		} {
			e := says(name, tt.id, "hello")
			e.User = tt.user
			got := r.enrich(e)
			if got.Auth.Matched || got.Auth.UserRef != "" || got.Auth.Provider != "api-gateway" || got.Auth.Method != "enrichment" || len(got.Errors) != tt.notes {
				t.Errorf("%s: auth = %+v, errors = %v", name, got.Auth, got.Errors)
			}
			if got.UserID != tt.id || got.Message.Text != "hello" {
				t.Errorf("%s: %+v; want it as it came", name, got)
			}
			if got.User != nil && got.User.Roles != nil {
				t.Errorf("%s: roles = %v; want none, because they are unverified", name, got.User.Roles)
			}
		}
		if r.store.puts.Load() != 0 {
			t.Errorf("%d documents were written", r.store.puts.Load())
		}
	})
}

func TestPersonIsFoundByEmail(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.put("users/discord:7", map[string]any{"provider": "discord", "email": "chidi@example.com", "displayName": "Chidi"})
		e := says("c1", "", "hello")
		e.User = &event.User{Email: "chidi@example.com"}
		got := r.enrich(e)
		if got.UserID != "discord:7" || !got.Auth.Matched || got.User.DisplayName != "Chidi" || r.user("discord:7").MessageCountAllTime != 1 {
			t.Errorf("user = %+v, auth = %+v", got.User, got.Auth)
		}
	})
}

func TestRedeliveryCountsNothingAndRepeatsTheDecision(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("welcome", map[string]any{"when": `"NEW_USER" in event.user.tags`, "candidates": textCandidate("Welcome, {{ event.user.displayName }}!"), "cooldownSeconds": 3600})
		r.bus.fail[topology.Enriched] = 1
		e := onTwitch("c1", "5", "hi", `"displayName":"Bo","isMod":true`)
		if err := r.try(e); err == nil {
			t.Fatal("no error, though it could not be published")
		}
		published := r.now
		r.now = r.now.Add(time.Minute)
		for range 2 {
			if err := r.Enrich(t.Context(), bus.Incoming{Event: e, ID: "1", Published: published}); err != nil {
				t.Fatal(err)
			}
		}
		sent := r.bus.sent[topology.Enriched]
		if len(sent) != 2 {
			t.Fatalf("published %d times; want 2", len(sent))
		}
		if diff := cmp.Diff(sent[0], sent[1]); diff != "" {
			t.Errorf("not the same (-first +second):\n%s", diff)
		}
		if tags := sent[0].Event.User.Tags; !slices.Contains(tags, "NEW_USER") || !slices.Contains(tags, "FIRST_SESSION_MESSAGE") {
			t.Errorf("tags = %v; want those of the first delivery", tags)
		}
		if u := r.user("twitch:5"); u.MessageCountAllTime != 1 || u.SessionCount != 1 || len(u.Recent) != 1 {
			t.Errorf("document = %+v; want one message counted", u)
		}
		if r.store.puts.Load() != 1 {
			t.Errorf("the document was written %d times; want 1", r.store.puts.Load())
		}
		for _, text := range r.answers() {
			if text != "Welcome, Bo!" {
				t.Errorf("answered %q", text)
			}
		}
		ids := map[string]bool{}
		for _, out := range r.bus.sent[topology.Egress] {
			ids[out.IdempotencyKey] = true
		}
		if len(ids) != 1 {
			t.Errorf("%d deliveries; want 1", len(ids))
		}

		// another event of the same user is another one
		if got := r.enrich(onTwitch("c2", "5", "hi again", `"isMod":true`)); !slices.Contains(got.User.Tags, "RETURNING_USER") || slices.Contains(got.User.Tags, "NEW_USER") {
			t.Errorf("tags = %v", got.User.Tags)
		}
	})
}

func TestDocumentOfAnOlderRevisionIsPacked(t *testing.T) {
	onFirestore(t, func(r *rig) {
		seen := store.NewSeenID("c1")
		r.put("users/twitch:5", map[string]any{
			"provider": "twitch", "firstSeenAt": start, "messageCountAllTime": 1,
			"recent": []map[string]any{{"id": hex.EncodeToString(seen[:]), "tags": []string{"PROVIDER_TWITCH", "NEW_USER"}}},
		})
		got := r.enrich(says("c1", "twitch:5", "hi"))
		if !slices.Contains(got.User.Tags, "NEW_USER") || r.store.puts.Load() != 0 {
			t.Errorf("redelivered: tags %v after %d writes; want the stored tags and no write", got.User.Tags, r.store.puts.Load())
		}
		r.enrich(says("c2", "twitch:5", "hi"))
		snap, err := r.client.Doc("users/twitch:5").Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if packed, _ := snap.Data()["recentPacked"].([]byte); len(packed) == 0 || r.user("twitch:5").MessageCountAllTime != 2 {
			t.Errorf("document = %v; want the events packed", snap.Data())
		}
		r.enrich(says("c1", "twitch:5", "hi"))
		if u := r.user("twitch:5"); u.MessageCountAllTime != 2 || len(u.Recent) != 2 {
			t.Errorf("%d messages and %d events; want 2 of each", u.MessageCountAllTime, len(u.Recent))
		}
	})
}

func TestRevokedRoleIsRemovedAndManualRoleStays(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.put("users/twitch:5", map[string]any{"roles": []string{"friend"}})
		check := func(e *event.Event, want ...string) {
			t.Helper()
			got := r.enrich(e)
			if diff := cmp.Diff(want, got.User.Roles, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s: roles (-want +got):\n%s", e.CorrelationID, diff)
			}
		}
		check(onTwitch("c1", "5", "hi", `"isMod":true,"isSubscriber":true`), "friend", "moderator", "subscriber")
		check(onTwitch("c2", "5", "hi", `"color":"red"`), "friend", "moderator", "subscriber") // without a statement about roles
		check(onTwitch("c3", "5", "hi", `"isMod":false,"isSubscriber":true`), "friend", "subscriber")
		r.put("users/twitch:5", map[string]any{"roles": []string{"friend", "subscriber"}, "rolesMeta": map[string]any{"twitch": []string{"subscriber"}, "manual": []string{"friend"}}})
		check(onTwitch("c4", "5", "hi", `"isMod":false,"isSubscriber":false`), "friend")
	})
}

func TestRolesCountWhereTheyWereGiven(t *testing.T) {
	onFirestore(t, func(r *rig) {
		// the document of an older revision: the moderator's role is from any channel
		r.put("users/twitch:5", map[string]any{"roles": []string{"friend", "moderator"}, "rolesMeta": map[string]any{"twitch": []string{"moderator"}}})
		const probe = `{{ event.user.roles.join(",") }}|{{ event.user.rolesIn[event.channel].join(",") }}|{{ event.user.rolesMeta.map(k, k).size() }}|` +
			`{{ "twitch:ada" in event.user.rolesIn ? event.user.rolesIn["twitch:ada"].join(",") : "" }}`
		r.rule("probe", map[string]any{"candidates": textCandidate(probe)})
		at := func(e *event.Event, channel string) *event.Event { e.Channel = channel; return e }
		guild := func(id, channel, where, roles string) *event.Event {
			return at(raw(id, "ingress.discord", `{"userId":"9",`+where+`"roles":[`+roles+`]}`), channel)
		}
		for _, tt := range []struct {
			name string
			in   *event.Event
			want string // roles, roles in the channel, sources, roles in Ada's channel
		}{
			{"an older revision's role", at(onTwitch("t0", "5", "hi", `"color":"red"`), "twitch:bruno"), "friend||1|"},
			{"a moderator in the channel", at(onTwitch("t1", "5", "hi", `"isMod":true`), "twitch:ada"), "friend,moderator|moderator|2|moderator"},
			{"another channel", at(onTwitch("t2", "5", "hi", `"isMod":false,"isSubscriber":true`), "twitch:bruno"), "friend,subscriber|subscriber|2|moderator"},
			{"a whisper", at(onTwitch("t3", "5", "hi", `"color":"red"`), ""), "friend||1|moderator"},
			{"a whisper that claims a role", at(onTwitch("t4", "5", "hi", `"isMod":true`), ""), "friend||1|moderator"},
			{"a web room", at(says("t5", "twitch:5", "hi"), "lobby"), "friend||1|moderator"},
			{"an event of the channel without roles", at(onTwitch("t6", "5", "hi", `"color":"red"`), "twitch:ada"), "friend,moderator|moderator|2|moderator"},
			{"the role is revoked in the channel", at(onTwitch("t7", "5", "hi", `"isMod":false`), "twitch:ada"), "friend||1|"},
			{"the other channel keeps its role", at(onTwitch("t8", "5", "hi", `"color":"red"`), "twitch:bruno"), "friend,subscriber|subscriber|2|"},
			{"a guild", guild("d1", "discord:11", `"guildId":"1",`, `"mods"`), "moderator|moderator|1|"},
			{"another channel of the guild", at(raw("d2", "ingress.discord", `{"userId":"9","guildId":"1"}`), "discord:12"), "moderator|moderator|1|"},
			{"another guild", guild("d3", "discord:21", `"guildId":"2",`, ``), "||0|"},
			{"a direct message", at(raw("d4", "ingress.discord", `{"userId":"9","isDirect":true}`), "discord:31"), "||0|"},
			{"a direct message that claims a role", guild("d5", "discord:31", `"isDirect":true,`, `"mods"`), "||0|"},
		} {
			before := len(r.answers())
			r.enrich(tt.in)
			got := r.answers()[before:]
			if len(got) != 1 || got[0] != tt.want {
				t.Errorf("%s: %q; want %q\n%s", tt.name, got, tt.want, r.log)
			}
		}
		if diff := cmp.Diff(map[string][]string{"discord:1": {"moderator"}}, r.user("discord:9").RolesIn); diff != "" {
			t.Errorf("stored roles (-want +got):\n%s", diff)
		}
	})
}

func TestRedeliveredEventKeepsItsOwnRoles(t *testing.T) {
	onFirestore(t, func(r *rig) {
		first := onTwitch("c1", "5", "hi", `"isMod":true`)
		r.enrich(first)
		r.enrich(onTwitch("c2", "5", "hi", `"isMod":false`))
		if got := r.enrich(first); !cmp.Equal(got.User.Roles, []string{"moderator"}) {
			t.Errorf("roles = %v; want the roles of the first delivery", got.User.Roles)
		}
	})
}

func TestDiscordRoles(t *testing.T) {
	onFirestore(t, func(r *rig) {
		e := raw("c1", "ingress.discord", `{"user":{"id":"9"},"roles":["mods","other"]}`)
		if got := r.enrich(e); !cmp.Equal(got.User.Roles, []string{"moderator"}) || got.UserID != "discord:9" {
			t.Errorf("user = %+v", got.User)
		}
	})
}

func raw(id, source, payload string) *event.Event {
	return &event.Event{
		V: event.Version, Source: source, CorrelationID: id, Type: event.TypeChatMessage, Channel: "lobby",
		Message: &event.Message{Role: event.RoleUser, Text: "hi", RawPlatformPayload: []byte(payload)},
	}
}

func TestRuleAnswers(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("hello", map[string]any{"when": `event.message.text == "!hello"`, "priority": 2, "candidates": textCandidate("Hello {{ event.user.displayName }}"),
			"annotations": []map[string]any{{"kind": "mood", "value": "cheerful"}}})
		r.rule("fallback", map[string]any{"when": `event.message.text.startsWith("!")`, "priority": 5, "candidates": textCandidate("What?")})
		r.put("users/twitch:5", map[string]any{"displayName": "Ada"})
		got := r.enrich(says("c1", "twitch:5", "!hello"))
		if got.Next() != "" || len(got.Candidates) != 2 || len(got.Annotations) != 1 {
			t.Errorf("observers got %+v", got)
		}
		if diff := cmp.Diff([]string{"Hello Ada"}, r.answers()); diff != "" {
			t.Fatalf("answers (-want +got):\n%s", diff)
		}
		out := r.bus.sent[topology.Egress][0]
		if out.IdempotencyKey != delivery.ID("c1", "rule:hello") || out.Event.UserID != "twitch:5" || out.Event.Egress.Destination != "api-gateway" {
			t.Errorf("answer = %+v, %+v", out, out.Event)
		}
		if key := r.bus.sent[topology.Enriched][0].IdempotencyKey; key == "" || key == "c1" || key == out.IdempotencyKey {
			t.Errorf("idempotency key for observers = %q", key)
		}
		entry, err := r.ledger.Get(t.Context(), out.IdempotencyKey)
		if err != nil || entry.Step != "rule:hello" || entry.State != delivery.Pending {
			t.Errorf("ledger entry = %+v, %v", entry, err)
		}
		r.enrich(says("c2", "twitch:5", "nothing special"))
		if len(r.answers()) != 1 {
			t.Errorf("answers = %v", r.answers())
		}
	})
}

func TestAnswerToChannelHasNoUser(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("hello", map[string]any{"candidates": textCandidate("Hello all"), "egress": map[string]any{"audience": "channel", "type": "chat"}})
		got := r.enrich(says("c1", "twitch:5", "!hello"))
		out := r.bus.sent[topology.Egress][0].Event
		if out.UserID != "" || out.Channel != "lobby" || out.Egress.Destination != "api-gateway" {
			t.Errorf("answer to %q in %q by %+v", out.UserID, out.Channel, out.Egress)
		}
		if got.UserID != "twitch:5" {
			t.Errorf("observers got the user %q", got.UserID)
		}
	})
}

func TestRuleRequestsModel(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("ask", map[string]any{"when": `event.message.text.startsWith("!ask ")`, "slip": []string{"personality"},
			"annotations": []map[string]any{{"kind": "personality", "name": "pirate", "score": 1}},
			"candidates":  []map[string]any{{"text": "I don't know.", "priority": 900}}})
		got := r.enrich(says("c1", "twitch:5", "!ask why"))
		if got.Next() != "personality" || len(got.Candidates) != 1 || len(r.answers()) != 0 {
			t.Errorf("next %q, %d candidates, answers %v; want the model asked, with the rule's answer along", got.Next(), len(got.Candidates), r.answers())
		}
		slip := got.RoutingSlip
		if len(slip) != 2 || slip[0].ID != "enrichment" || slip[1].NextTopic != string(topology.Enriched) {
			t.Errorf("slip = %+v", slip)
		}
		if text, _ := event.Text(got.Annotations[0].Payload, "name"); text != "pirate" {
			t.Errorf("annotations = %+v", got.Annotations)
		}
	})
}

func TestFailingRuleIsLoggedAndSkipped(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("syntax", map[string]any{"when": `event.`, "candidates": textCandidate("a"), "priority": 1})
		r.rule("runtime", map[string]any{"when": `event.payload.gone == "TOPSECRET"`, "candidates": textCandidate("b"), "priority": 2})
		r.rule("text", map[string]any{"candidates": textCandidate("{{ int(event.message.text) }}"), "priority": 3})
		r.put("rules/shape", map[string]any{"enabled": true, "priority": "first"})
		r.rule("ok", map[string]any{"candidates": textCandidate("fine"), "priority": 4})
		r.enrich(says("c1", "twitch:5", "my own words"))
		if diff := cmp.Diff([]string{"fine"}, r.answers()); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
		var debug, above []string
		for line := range strings.Lines(r.log.String()) {
			if strings.Contains(line, "level=DEBUG") {
				debug = append(debug, line)
			} else {
				above = append(above, line)
			}
		}
		for _, id := range []string{"syntax", "runtime", "text", "shape"} {
			if !strings.Contains(strings.Join(above, ""), "rule="+id) {
				t.Errorf("rule %s was not logged:\n%s", id, r.log)
			}
		}
		if strings.Contains(strings.Join(above, ""), "my own words") {
			t.Errorf("the message stands in the log:\n%s", r.log)
		}
		if want := "rules.evaluated=3 rules.matched=1 rules.failed=2"; !strings.Contains(strings.Join(debug, ""), want) {
			t.Errorf("no %s in the log:\n%s", want, r.log)
		}
	})
}

func TestCooldownIsPerUserAndPlace(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("hello", map[string]any{"candidates": textCandidate("Hello"), "cooldownSeconds": 60})
		for _, step := range []struct {
			after                     time.Duration
			id, source, user, channel string
			answers                   int
		}{
			{0, "c1", "api-gateway", "twitch:1", "lobby", 1},
			{59 * time.Second, "c2", "api-gateway", "twitch:1", "lobby", 0},
			{0, "c3", "api-gateway", "twitch:2", "lobby", 1},
			{0, "c4", "api-gateway", "twitch:1", "den", 0}, // another web room
			{0, "c5", "api-gateway", "twitch:1", "", 0},
			{0, "c6", "ingress.twitch", "twitch:1", "twitch:ada", 1},
			{0, "c7", "ingress.twitch", "twitch:1", "twitch:bruno", 1},
			{0, "c8", "ingress.twitch", "twitch:1", "twitch:ada", 0},
			{0, "c9", "ingress.twitch", "twitch:1", "", 1},
			{0, "c2", "api-gateway", "twitch:1", "lobby", 0}, // redelivered: no answer, as before
			{time.Second, "c10", "api-gateway", "twitch:1", "attic", 1},
		} {
			r.now = r.now.Add(step.after)
			before := len(r.answers())
			e := says(step.id, step.user, "!hello")
			e.Source, e.Channel = step.source, step.channel
			r.enrich(e)
			if got := len(r.answers()) - before; got != step.answers {
				t.Errorf("%s: answered %d times; want %d", step.id, got, step.answers)
			}
		}
		r.now = r.now.Add(time.Hour)
		r.enrich(says("c11", "twitch:1", "!hello"))
		if n := len(r.user("twitch:1").Cooldowns); n != 1 {
			t.Errorf("%d cooldowns are stored; want 1, the running one", n)
		}
	})
}

func TestCooldownOfAnOlderRevisionStaysInForce(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("hello", map[string]any{"candidates": textCandidate("Hello"), "cooldownSeconds": 60})
		key := digest.Of("cooldown", "hello", "lobby")[:16]
		r.put("users/twitch:1", map[string]any{"cooldowns": map[string]any{key: start.Add(time.Minute)}})
		r.enrich(says("c1", "twitch:1", "!hello"))
		if got := r.answers(); len(got) != 0 {
			t.Errorf("answers = %v; want none", got)
		}
	})
}

// A user may send messages in many rooms at the same moment. Every event must succeed at its first delivery: failed
// deliveries slow down the subscription for all users.
func TestBurstInManyRoomsFailsNoEvent(t *testing.T) {
	for _, instances := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d instances", instances), func(t *testing.T) {
			onFirestore(t, func(r *rig) {
				r.rule("hello", map[string]any{"candidates": textCandidate("Hello"), "cooldownSeconds": 3600})
				all := []*rig{r}
				for len(all) < instances {
					all = append(all, r.another())
				}
				const rooms = 100
				var g errgroup.Group
				for i := range rooms {
					g.Go(func() error {
						e := says(fmt.Sprint("c", i), "api-gateway:eve", "!hello")
						e.Channel = fmt.Sprint("room", i)
						return all[i%instances].try(e)
					})
				}
				if err := g.Wait(); err != nil {
					t.Fatal(err)
				}
				puts, published, answers := 0, 0, 0
				for _, f := range all {
					puts += int(f.store.puts.Load())
					published += len(f.bus.sent[topology.Enriched])
					answers += len(f.answers())
				}
				if u := r.user("api-gateway:eve"); u.MessageCountAllTime != rooms || published != rooms || answers != 1 || puts > rooms/2 {
					t.Errorf("%d messages counted, %d published, %d answers, %d writes; want %d, %d, 1 and at most %d", u.MessageCountAllTime, published, answers, puts, rooms, rooms, rooms/2)
				}
			})
		})
	}
}

func TestBlockedUsersAreOnlyObserved(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("hello", map[string]any{"candidates": textCandidate("Hello"), "annotations": []map[string]any{{"kind": "mood"}}})
		for _, status := range []string{"blocked", "Banned"} {
			r.put("users/twitch:5", map[string]any{"status": status})
			e := says(status, "twitch:5", "hi")
			e.RoutingSlip = []event.Step{{ID: "personality", Status: event.StepPending}}
			for range 2 {
				got := r.enrich(e)
				if len(got.Annotations)+len(got.Candidates) != 0 || got.Next() != "" || got.RoutingSlip[0].Status != event.StepSkip || got.User.Status != status {
					t.Errorf("%s: observers got %+v", status, got)
				}
			}
			if n := r.user("twitch:5").MessageCountAllTime; n != 1 {
				t.Errorf("%s: %d messages counted", status, n)
			}
		}
		if len(r.answers()) != 0 {
			t.Errorf("answers = %v", r.answers())
		}
	})
}

func TestConflictIsDecidedAgain(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("hello", map[string]any{"when": `event.user.displayName == "Ada"`, "candidates": textCandidate("Hello {{ event.user.displayName }}")})
		times := 1
		r.store.before = func() {
			if times--; times >= 0 {
				r.put("users/twitch:5", map[string]any{"displayName": "Ada", "messageCountAllTime": 41})
			}
		}
		got := r.enrich(says("c1", "twitch:5", "hi"))
		if u := r.user("twitch:5"); u.MessageCountAllTime != 42 || r.store.puts.Load() != 2 {
			t.Errorf("%d messages after %d writes; want 42 after 2", u.MessageCountAllTime, r.store.puts.Load())
		}
		if slices.Contains(got.User.Tags, "FIRST_ALLTIME_MESSAGE") || !cmp.Equal(r.answers(), []string{"Hello Ada"}) {
			t.Errorf("tags = %v, answers %v; want what the document says now", got.User.Tags, r.answers())
		}

		n := 0
		r.store.before = func() { n++; r.put("users/twitch:5", map[string]any{"messageCountAllTime": n}) }
		r.store.puts.Store(0)
		err := r.try(says("c2", "twitch:5", "hi"))
		if _, dead := errors.AsType[*deadletter.Error](err); !errors.Is(err, store.ErrConflict) || dead || r.store.puts.Load() != 6 {
			t.Errorf("error %v after %d writes; want a conflict, to be tried again, after 6", err, r.store.puts.Load())
		}
	})
}

// If the response to a write is lost, the client's retry meets a conflict: the same event already changed the document.
func TestWriteWithLostResponseCountsOnce(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("hello", map[string]any{"candidates": textCandidate("Hello"), "cooldownSeconds": 60})
		r.store.after = func() error { r.store.after = nil; return store.ErrConflict }
		got := r.enrich(says("c1", "twitch:5", "hi"))
		if n := r.user("twitch:5").MessageCountAllTime; n != 1 || r.store.puts.Load() != 1 || len(r.answers()) != 1 || !slices.Contains(got.User.Tags, "NEW_USER") {
			t.Errorf("%d messages counted in %d writes, answers %v, tags %v", n, r.store.puts.Load(), r.answers(), got.User.Tags)
		}
	})
}

// Two instances may handle the same event at the same time.
func TestConcurrentDuplicateCountsOnce(t *testing.T) {
	onFirestore(t, func(r *rig) {
		e := says("c1", "twitch:5", "hi")
		second := r.another()
		r.store.before = func() {
			r.store.before = nil
			if err := second.try(e); err != nil {
				t.Error(err)
			}
		}
		if err := r.try(e); err != nil {
			t.Fatal(err)
		}
		sent := slices.Concat(r.bus.sent[topology.Enriched], second.bus.sent[topology.Enriched])
		if u := r.user("twitch:5"); u.MessageCountAllTime != 1 || len(sent) != 2 || !cmp.Equal(sent[0].Event.User, sent[1].Event.User) {
			t.Errorf("%d messages counted, published %d times", u.MessageCountAllTime, len(sent))
		}
	})
}

func TestPermanentFailureIsDeadLettered(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("hello", map[string]any{"candidates": textCandidate("Hello")})
		e := says("late", "twitch:5", "hi")
		e.TimeoutAt = start.Add(-time.Second)
		big := says("big", "twitch:5", strings.Repeat("x", event.MaxSize-200))
		for want, in := range map[deadletter.Reason]*event.Event{deadletter.Expired: e, deadletter.InvalidEvent: big} {
			err := r.try(in)
			if dead, ok := errors.AsType[*deadletter.Error](err); !ok || dead.Reason != want {
				t.Errorf("%s: error %v; want a dead letter, %s", in.CorrelationID, err, want)
			}
		}
		// what can be tried again is not a dead letter yet
		r.bus.fail[topology.Enriched] = 1
		e.CorrelationID = "late2"
		if err := r.try(e); err == nil || errors.As(err, new(*deadletter.Error)) {
			t.Errorf("error %v; want one to be tried again", err)
		}
	})
}

func TestRulesAreCached(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("a", map[string]any{"candidates": textCandidate("a")})
		r.enrich(says("c1", "twitch:5", "hi"))
		r.rule("a", map[string]any{"candidates": textCandidate("b")})
		r.enrich(says("c2", "twitch:5", "hi"))
		r.now = r.now.Add(time.Minute)
		r.enrich(says("c3", "twitch:5", "hi"))
		if diff := cmp.Diff([]string{"a", "a", "b"}, r.answers()); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
	})
}

// After a warm-up, an event costs one read and one write, and a second write if a rule answers. Without a cached link, one
// more document is read in the same call. A second call follows only if the link changed.
func TestRoundTrips(t *testing.T) {
	server, err := firestoreserver.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	r := newRig(t, emulatortest.Env{Project: "counts", Firestore: server.Addr()})
	r.rule("hello", map[string]any{"when": `event.message.text == "!hello"`, "candidates": textCandidate("Hello"), "cooldownSeconds": 60})
	r.rule("ask", map[string]any{"when": `event.message.text == "!ask"`, "slip": []string{"personality"}})
	r.put("users/twitch:1", map[string]any{"email": "a@example.com"})
	r.enrich(says("warm", "twitch:9", "hi"))
	byEmail := says("by e-mail", "", "hi")
	byEmail.User = &event.User{Email: "a@example.com"}
	byEmailAgain := byEmail.Clone()
	byEmailAgain.CorrelationID = "again"
	r.put("identities/discord:6", map[string]any{"user": "twitch:5"})
	for _, tt := range []struct {
		name          string
		in            *event.Event
		reads, writes int64
		rpcs          map[string]int64
	}{
		{"a new user", says("c1", "twitch:5", "hi"), 2, 1, map[string]int64{"BatchGetDocuments": 1, "Commit": 1}},
		{"a known user", says("c2", "twitch:5", "hi"), 1, 1, map[string]int64{"BatchGetDocuments": 1, "Commit": 1}},
		{"for a model", says("c3", "twitch:5", "!ask"), 1, 1, map[string]int64{"BatchGetDocuments": 1, "Commit": 1}},
		{"redelivered", says("c3", "twitch:5", "!ask"), 1, 0, map[string]int64{"BatchGetDocuments": 1}},
		{"found by e-mail", byEmail, 3, 1, map[string]int64{"RunQuery": 1, "BatchGetDocuments": 1, "Commit": 1}},
		{"found by e-mail again", byEmailAgain, 1, 1, map[string]int64{"RunQuery": 1, "Commit": 1}},
		{"linked", says("c7", "discord:6", "hi"), 3, 1, map[string]int64{"BatchGetDocuments": 2, "Commit": 1}},
		{"linked, and remembered", says("c8", "discord:6", "hi"), 1, 1, map[string]int64{"BatchGetDocuments": 1, "Commit": 1}},
		{"without a user", says("c5", "", "hi"), 0, 0, map[string]int64{}},
		{"answered by a rule", says("c6", "twitch:5", "!hello"), 1, 2, map[string]int64{"BatchGetDocuments": 1, "Commit": 2}},
	} {
		before := server.Counts()
		r.enrich(tt.in)
		got := server.Counts().Sub(before)
		if got.Reads != tt.reads || got.Writes != tt.writes || !cmp.Equal(got.RPCs, tt.rpcs) {
			t.Errorf("%s: %d reads, %d writes, calls %v; want %d, %d, %v", tt.name, got.Reads, got.Writes, got.RPCs, tt.reads, tt.writes, tt.rpcs)
		}
	}
}
