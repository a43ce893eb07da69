package enrichment

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

func TestTagsAndSessions(t *testing.T) {
	const (
		provider, isNew, returning = "PROVIDER_TWITCH", tagNew, tagReturning
	)
	type step struct {
		after    time.Duration // since noon
		silent   bool          // not a chat message
		tags     []string
		messages int64
		sessions int64
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"messages", []step{
			{0, false, []string{provider, isNew, tagFirstAllTime, tagFirstSession}, 1, 1},
			{time.Hour, false, []string{provider, returning}, 2, 1},
			{time.Hour + day - time.Microsecond, false, []string{provider, returning}, 3, 1},
			{time.Hour + 2*day - time.Microsecond, false, []string{provider, returning, tagFirstSession}, 4, 2},
			{time.Hour + 2*day, false, []string{provider, returning}, 5, 2},
		}},
		{"a follow first", []step{
			{0, true, []string{provider, isNew}, 0, 1},
			{time.Minute, false, []string{provider, returning, tagFirstAllTime, tagFirstSession}, 1, 1},
			{2 * time.Minute, true, []string{provider, returning}, 1, 1},
		}},
		{"a follow keeps a session open", []step{
			{0, false, []string{provider, isNew, tagFirstAllTime, tagFirstSession}, 1, 1},
			{20 * time.Hour, true, []string{provider, returning}, 1, 1},
			{40 * time.Hour, false, []string{provider, returning}, 2, 1},
		}},
		{"one that comes late", []step{
			{2 * time.Hour, false, []string{provider, isNew, tagFirstAllTime, tagFirstSession}, 1, 1},
			{time.Hour, false, []string{provider, returning}, 2, 1},
			{25*time.Hour + time.Minute, false, []string{provider, returning}, 3, 1},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var doc store.User
			var lastSeen time.Time
			for i, s := range tt.steps {
				h := observation{correlationID: fmt.Sprint(i), at: noon.Add(s.after), message: !s.silent}
				v := countEvent(doc, self(mustParse(t, "twitch:1")), h, day)
				v.remember(h.correlationID, []string{"r"})
				if diff := cmp.Diff(s.tags, v.tags); diff != "" {
					t.Errorf("event %d: tags (-want +got):\n%s", i, diff)
				}
				lastSeen = latest(lastSeen, h.at)
				d := v.doc
				if d.MessageCountAllTime != s.messages || d.SessionCount != s.sessions || !d.LastSeenAt.Equal(lastSeen) || !d.LastSessionActivityAt.Equal(lastSeen) {
					t.Errorf("event %d: document = %+v; want %d messages, %d sessions, last seen %s", i, d, s.messages, s.sessions, lastSeen)
				}
				if again := countEvent(d, self(mustParse(t, "twitch:1")), h, day); !again.repeated || !cmp.Equal(again.tags, s.tags) || !cmp.Equal(again.doc, d) || !cmp.Equal(again.rules, []string{"r"}) {
					t.Errorf("event %d again: %+v; want nothing changed, and the tags %v", i, again, s.tags)
				}
				doc = d
			}
			if !doc.FirstSeenAt.Equal(noon.Add(tt.steps[0].after)) {
				t.Errorf("first seen at %s", doc.FirstSeenAt)
			}
		})
	}
}

func TestSessionHasItsOwnID(t *testing.T) {
	id := mustParse(t, "twitch:1")
	a := countEvent(store.User{}, self(id), observation{correlationID: "1", at: noon}, day).doc
	b := countEvent(a, self(id), observation{correlationID: "2", at: noon.Add(time.Hour)}, day).doc
	c := countEvent(b, self(id), observation{correlationID: "3", at: noon.Add(3 * day)}, day).doc
	if a.LastSessionID == "" || a.LastSessionID != b.LastSessionID || b.LastSessionID == c.LastSessionID || !c.LastSessionStartedAt.Equal(noon.Add(3*day)) {
		t.Errorf("sessions %q, %q, %q", a.LastSessionID, b.LastSessionID, c.LastSessionID)
	}
}

func TestOldestCountedEventIsDropped(t *testing.T) {
	var doc store.User
	id := mustParse(t, "twitch:1")
	for i := range maxRecent + 3 {
		h := observation{correlationID: fmt.Sprint(i), at: noon}
		v := countEvent(doc, self(id), h, day)
		v.remember(h.correlationID, nil)
		doc = v.doc
	}
	if len(doc.Recent) != maxRecent || doc.Recent[0].ID != store.NewSeenID("3") {
		t.Errorf("%d remembered, the first %+v; want %d from the fourth on", len(doc.Recent), doc.Recent[0], maxRecent)
	}
}

func TestProviderOfDocument(t *testing.T) {
	for _, tt := range []struct{ id, has, want, tag string }{
		{"twitch:1", "", "twitch", "PROVIDER_TWITCH"},
		{"api-gateway:a", "", "api-gateway", "PROVIDER_API_GATEWAY"},
		{"twitch:1", "discord", "discord", "PROVIDER_DISCORD"},
	} {
		v := countEvent(store.User{Provider: tt.has}, self(mustParse(t, tt.id)), observation{correlationID: "1", at: noon}, day)
		if v.doc.Provider != tt.want || v.tags[0] != tt.tag {
			t.Errorf("%s with %q: provider %q, tag %s; want %q, %s", tt.id, tt.has, v.doc.Provider, v.tags[0], tt.want, tt.tag)
		}
	}
}

func TestApplyAttributes(t *testing.T) {
	known := store.User{DisplayName: "Old", Email: "old@example.com", Profile: map[string]string{"color": "red"}}
	for _, tt := range []struct {
		name string
		doc  store.User
		in   attributes
		want store.User
	}{
		{"nothing", known, attributes{}, known},
		{"firsthand", known, attributes{displayName: "New", email: "new@example.com", profile: map[string]string{"color": "blue", "username": "n"}, authoritative: true},
			store.User{DisplayName: "New", Email: "old@example.com", Profile: map[string]string{"color": "blue", "username": "n"}}},
		{"hearsay", known, attributes{displayName: "New", profile: map[string]string{"color": "blue", "username": "n"}},
			store.User{DisplayName: "Old", Email: "old@example.com", Profile: map[string]string{"color": "red", "username": "n"}}},
		{"hearsay about an empty document", store.User{}, attributes{displayName: "New", email: "new@example.com"}, store.User{DisplayName: "New", Email: "new@example.com"}},
	} {
		got := tt.doc
		applyAttributes(&got, tt.in)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	if known.Profile["color"] != "red" || len(known.Profile) != 1 {
		t.Errorf("the profile that was read was changed: %v", known.Profile)
	}
}

func TestMergeRoles(t *testing.T) {
	type meta = map[string][]string
	for _, tt := range []struct {
		name      string
		roles     []string
		meta      meta
		platform  string
		given     []string
		wantRoles []string
		wantMeta  meta
	}{
		{"given", nil, nil, "twitch", []string{"moderator"}, []string{"moderator"}, meta{"twitch": {"moderator"}}},
		{"lost", []string{"moderator"}, meta{"twitch": {"moderator"}}, "twitch", nil, nil, meta{}},
		{"replaced", []string{"moderator"}, meta{"twitch": {"moderator"}}, "twitch", []string{"vip"}, []string{"vip"}, meta{"twitch": {"vip"}}},
		{"another platform's stays", []string{"moderator", "vip"}, meta{"twitch": {"moderator"}, "discord": {"vip"}}, "twitch", nil, []string{"vip"}, meta{"discord": {"vip"}}},
		{"by hand stays", []string{"admin", "moderator"}, meta{"manual": {"admin"}, "twitch": {"moderator"}}, "twitch", nil, []string{"admin"}, meta{"manual": {"admin"}}},
		{"unexplained stays, and is explained", []string{"friend"}, nil, "twitch", []string{"vip"}, []string{"friend", "vip"}, meta{"manual": {"friend"}, "twitch": {"vip"}}},
		{"by hand stays when the platform takes the same away", []string{"moderator"}, meta{"manual": {"moderator"}, "twitch": {"moderator"}}, "twitch", nil, []string{"moderator"}, meta{"manual": {"moderator"}}},
	} {
		roles, m := mergeRoles(store.User{Roles: tt.roles, RolesMeta: tt.meta}, tt.platform, tt.given)
		if diff := cmp.Diff(tt.wantRoles, roles, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: roles (-want +got):\n%s", tt.name, diff)
		}
		if diff := cmp.Diff(tt.wantMeta, m, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: meta (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestStoreRoles(t *testing.T) {
	full := map[string][]string{}
	for i := range maxPlaces {
		full[fmt.Sprintf("twitch:%02d", i)] = []string{"vip"}
	}
	for _, tt := range []struct {
		name  string
		all   map[string][]string
		place string
		given []string
		has   string // a place with roles
		size  int
	}{
		{"the first place", nil, "twitch:a", []string{"vip"}, "twitch:a", 1},
		{"no roles", nil, "twitch:a", nil, "", 0},
		{"the last role is revoked", map[string][]string{"twitch:a": {"vip"}}, "twitch:a", nil, "", 0},
		{"another place keeps its roles", map[string][]string{"twitch:a": {"vip"}}, "twitch:b", []string{"vip"}, "twitch:a", 2},
		{"too many places", full, "twitch:a", []string{"vip"}, "twitch:a", maxPlaces},
		{"a place in a full document", full, "twitch:01", []string{"moderator"}, "twitch:00", maxPlaces},
	} {
		got := storeRoles(tt.all, tt.place, tt.given)
		if len(got) != tt.size || tt.has != "" && len(got[tt.has]) != 1 {
			t.Errorf("%s: %v; want %d places, with %q", tt.name, got, tt.size, tt.has)
		}
	}
	if len(full) != maxPlaces {
		t.Error("the argument was changed")
	}
}

func TestCooldowns(t *testing.T) {
	c := cooldowns{place: "lobby", at: noon}
	c.until = c.after(map[string]time.Duration{"hello": time.Minute})
	for _, tt := range []struct {
		name, rule, channel string
		at                  time.Time
		want                bool
	}{
		{"at once", "hello", "lobby", noon, true},
		{"just before its end", "hello", "lobby", noon.Add(time.Minute - 1), true},
		{"at its end", "hello", "lobby", noon.Add(time.Minute), false},
		{"in another channel", "hello", "den", noon, false},
		{"of another rule", "bye", "lobby", noon, false},
	} {
		if got := (cooldowns{until: c.until, place: tt.channel, at: tt.at}).active(tt.rule); got != tt.want {
			t.Errorf("%s: active %t; want %t", tt.name, got, tt.want)
		}
	}
	c.at = noon.Add(time.Hour)
	if left := c.after(nil); left != nil {
		t.Errorf("left %v; want what is over forgotten", left)
	}
	many := map[string]time.Duration{}
	for i := range maxCooldowns + 10 {
		many[fmt.Sprint(i)] = time.Duration(i+1) * time.Minute
	}
	kept := c.after(many)
	if _, ok := kept[cooldownKey("0", "lobby")]; len(kept) != maxCooldowns || ok {
		t.Errorf("%d kept; want the %d that end last", len(kept), maxCooldowns)
	}
}

// self returns the subject of an unlinked id.
func self(id identity.UserID) subject { return subject{id: id, person: id} }
