package enrichment_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

func (r *rig) link(id, person string) {
	r.t.Helper()
	if err := r.store.Link(r.t.Context(), store.Link{ID: parse(r.t, id), User: person, LinkedAt: r.now, LinkedBy: "test"}); err != nil {
		r.t.Fatal(err)
	}
}

// forget expires the cached links.
func (r *rig) forget() { r.now = r.now.Add(time.Minute) }

func parse(t *testing.T, id string) identity.UserID {
	t.Helper()
	parsed, err := identity.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// onDiscord returns a message in the form of the Discord ingress.
func onDiscord(id, user, roles string) *event.Event {
	e := raw(id, "ingress.discord", `{"userId":"`+user+`","displayName":"Ada of Discord","roles":[`+roles+`]}`)
	e.Channel = "discord:7"
	return e
}

func TestLinkedIDsShareOnePerson(t *testing.T) {
	onFirestore(t, func(r *rig) {
		twitch := func(id, mod string) *event.Event {
			return onTwitch(id, "5", "hi", `"displayName":"Ada","isSubscriber":true,"isMod":`+mod)
		}
		roles := func(got *event.Event, want ...string) {
			t.Helper()
			have := slices.Sorted(slices.Values(got.User.Roles))
			if diff := cmp.Diff(want, have); diff != "" {
				t.Errorf("%s: roles (-want +got):\n%s", got.CorrelationID, diff)
			}
		}
		roles(r.enrich(twitch("t1", "false")), "subscriber")
		roles(r.enrich(onDiscord("d1", "6", `"mods"`)), "moderator")
		if a, b := r.user("twitch:5"), r.user("discord:6"); a.MessageCountAllTime != 1 || b.MessageCountAllTime != 1 || a.DisplayName != "Ada" || b.DisplayName != "Ada of Discord" {
			t.Errorf("before: %+v and %+v; want two users", a, b)
		}

		r.link("discord:6", "twitch:5")
		r.forget()
		got := r.enrich(onDiscord("d2", "6", `"mods"`))
		roles(got, "moderator")
		if got.UserID != "discord:6" || got.User.ID != "twitch:5" || got.User.DisplayName != "Ada" ||
			got.Auth.UserRef != "users/twitch:5" || got.Auth.Identity != "discord:6" || got.Auth.Provider != "discord" ||
			!slices.Contains(got.User.Tags, "PROVIDER_DISCORD") || !slices.Contains(got.User.Tags, "RETURNING_USER") {
			t.Errorf("event = %q, %+v, %+v", got.UserID, got.User, got.Auth)
		}
		r.enrich(onDiscord("d2", "6", `"mods"`)) // again
		if a, b := r.user("twitch:5"), r.user("discord:6"); a.MessageCountAllTime != 2 || b.MessageCountAllTime != 1 || a.Provider != "twitch" {
			t.Errorf("after: %+v and %+v; want it counted once, for one person", a, b)
		}

		// each platform gives and revokes its own roles, in its own places
		got = r.enrich(twitch("t2", "true"))
		roles(got, "moderator", "subscriber")
		if got.Auth.Identity != "" || got.UserID != "twitch:5" || got.Auth.Provider != "twitch" {
			t.Errorf("by their own id: %q, %+v", got.UserID, got.Auth)
		}
		roles(r.enrich(onDiscord("d3", "6", "")))
		roles(r.enrich(twitch("t3", "false")), "subscriber")
		roles(r.enrich(onDiscord("d4", "6", `"mods"`)), "moderator")
		roles(r.enrich(twitch("t4", "false")), "subscriber")
		if diff := cmp.Diff(map[string][]string{"#parley": {"subscriber"}, "discord:7": {"moderator"}}, r.user("twitch:5").RolesIn); diff != "" {
			t.Errorf("stored roles (-want +got):\n%s", diff)
		}

		// Unlink removes the roles given by Discord
		if person, err := r.store.Unlink(t.Context(), parse(t, "discord:6")); err != nil || person.String() != "twitch:5" {
			t.Fatalf("Unlink = %v, %v", person, err)
		}
		r.forget()
		got = r.enrich(says("w1", "twitch:5", "hi"))
		roles(got)
		if diff := cmp.Diff(map[string][]string{"#parley": {"subscriber"}}, got.User.RolesIn); diff != "" {
			t.Errorf("roles by place (-want +got):\n%s", diff)
		}
		got = r.enrich(onDiscord("d5", "6", `"mods"`))
		if got.User.ID != "discord:6" || got.Auth.Identity != "" || r.user("discord:6").MessageCountAllTime != 2 {
			t.Errorf("unlinked: %+v, %+v", got.User, got.Auth)
		}
	})
}

// An answer goes to the sender's id on the sending platform or WebSocket.
func TestLinkedUserIsAnsweredOnTheSendingPlatform(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.link("discord:6", "twitch:5")
		r.link("api-gateway:eve", "twitch:5")
		r.rule("hello", map[string]any{"candidates": textCandidate("Hello {{ event.user.id }}"), "cooldownSeconds": 60})
		r.enrich(onDiscord("d1", "6", ""))
		r.enrich(says("w1", "api-gateway:eve", "hi"))
		r.enrich(says("w2", "discord:6", "hi")) // a client that is authenticated as the Discord user; silent in this room
		r.forget()
		r.enrich(says("w3", "discord:6", "hi"))
		var to []string
		for _, out := range r.bus.sent[topology.Egress] {
			to = append(to, out.Event.UserID+" of "+out.Event.User.ID)
		}
		if diff := cmp.Diff([]string{"discord:6 of twitch:5", "api-gateway:eve of twitch:5", "discord:6 of twitch:5"}, to); diff != "" {
			t.Errorf("answered (-want +got):\n%s", diff)
		}
		if n := r.user("twitch:5").MessageCountAllTime; n != 4 {
			t.Errorf("%d messages counted", n)
		}
	})
}

func TestBlockedPersonIsBlockedUnderEveryID(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("hello", map[string]any{"candidates": textCandidate("Hello")})
		r.put("users/twitch:5", map[string]any{"status": "blocked"})
		r.link("discord:6", "twitch:5")
		r.enrich(onDiscord("d1", "6", ""))
		if len(r.answers()) != 0 {
			t.Errorf("answered: %v", r.answers())
		}
	})
}

func TestLinkIsFollowedOnceAndInvalidLinkIgnored(t *testing.T) {
	onFirestore(t, func(r *rig) {
		// what no command makes, an operator may still write by hand
		r.put("identities/discord:1", map[string]any{"user": "discord:2"})
		r.put("identities/discord:2", map[string]any{"user": "discord:1"})
		r.put("identities/discord:3", map[string]any{"user": "discord:3"})
		r.put("identities/discord:4", map[string]any{"user": "ada"})
		r.put("identities/discord:5", map[string]any{"user": 5})
		for id, want := range map[string]string{"1": "discord:2", "2": "discord:1", "3": "discord:3", "4": "discord:4", "5": "discord:5"} {
			if got := r.enrich(onDiscord("d"+id, id, "")); got.User.ID != want || got.UserID != "discord:"+id {
				t.Errorf("discord:%s is %s; want %s", id, got.User.ID, want)
			}
		}
		for _, id := range []string{"discord:3", "discord:4", "discord:5"} {
			if !strings.Contains(r.log.String(), "user="+id) {
				t.Errorf("no warning about %s", id)
			}
		}
	})
}

func TestEmailFindsTheLinkedPerson(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.put("users/discord:6", map[string]any{"email": "ada@example.com"})
		r.link("discord:6", "twitch:5")
		for _, id := range []string{"c1", "c2"} {
			e := says(id, "", "hi")
			e.User = &event.User{Email: "ada@example.com"}
			if got := r.enrich(e); got.User.ID != "twitch:5" || got.UserID != "discord:6" {
				t.Errorf("user = %+v", got.User)
			}
		}
	})
}

func TestLinksAreCached(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.enrich(onDiscord("d1", "6", ""))
		r.link("discord:6", "twitch:5")
		if got := r.enrich(onDiscord("d2", "6", "")); got.User.ID != "discord:6" {
			t.Errorf("read at once: %+v", got.User)
		}
		r.forget()
		if got := r.enrich(onDiscord("d3", "6", "")); got.User.ID != "twitch:5" {
			t.Errorf("not read: %+v", got.User)
		}
	})
}
