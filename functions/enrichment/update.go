package enrichment

import (
	"maps"
	"slices"
	"strings"
	"time"

	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

// The tags that an event's user gets beside those of their document. They belong to the event, and stand in no
// document; the one of the provider is PROVIDER_TWITCH for twitch, PROVIDER_API_GATEWAY for api-gateway.
const (
	tagNew          = "NEW_USER"              // never seen before this event
	tagReturning    = "RETURNING_USER"        // seen before this event
	tagFirstAllTime = "FIRST_ALLTIME_MESSAGE" // the first message that they ever said
	tagFirstSession = "FIRST_SESSION_MESSAGE" // the first that they said in this session
	tagProvider     = "PROVIDER_"
)

const (
	// maxRecent is how many events a document remembers. A redelivery comes within the hour that Pub/Sub's ten attempts
	// take at most; a user who says more than this between an event and its redelivery is counted once too often.
	maxRecent = 64

	// maxCooldowns bounds what a document remembers of cooldowns; those that end soonest are forgotten first.
	maxCooldowns = 128

	// manual is who gave the roles in rolesMeta that no platform gave.
	manual = "manual"
)

// observation is what a user's document is told of an event.
type observation struct {
	correlationID string
	at            time.Time
	message       bool // whether the user said something
	attributes    attributes
}

// isUserMessage reports whether an event is something that a person said.
func isUserMessage(e *event.Event) bool {
	return e.Message != nil && (e.Message.Role == "" || e.Message.Role == event.RoleUser)
}

// userUpdate is what becomes of a user's document.
type userUpdate struct {
	doc      store.User
	tags     []string
	repeated bool     // the event was counted before: doc is as it was
	rules    []string // that held when it was counted
}

// countEvent counts an event in a user's document. sessionLength is how long a session outlives its last event. Given an
// event that it counted before, it changes nothing and finds the same tags.
func countEvent(doc store.User, who subject, h observation, sessionLength time.Duration) userUpdate {
	hash := store.NewSeenID(h.correlationID)
	if i := slices.IndexFunc(doc.Recent, func(s store.Seen) bool { return s.ID == hash }); i >= 0 {
		return userUpdate{doc: doc, tags: doc.Recent[i].Tags, repeated: true, rules: doc.Recent[i].Rules}
	}
	v := userUpdate{doc: doc}
	d := &v.doc
	if d.Provider == "" {
		d.Provider = string(who.person.Platform())
	}
	v.tags = []string{tagProvider + strings.ToUpper(strings.ReplaceAll(who.provider(*d), "-", "_"))}
	if d.FirstSeenAt.IsZero() {
		d.FirstSeenAt = h.at
		v.tags = append(v.tags, tagNew)
	} else {
		v.tags = append(v.tags, tagReturning)
	}
	if d.LastSessionActivityAt.IsZero() || h.at.Sub(d.LastSessionActivityAt) >= sessionLength {
		d.SessionCount++
		d.LastSessionStartedAt = h.at
		d.LastSessionID = digest.Of("session", who.person.String(), h.at.Format(time.RFC3339Nano))
	}
	if h.message {
		if d.MessageCountAllTime == 0 {
			v.tags = append(v.tags, tagFirstAllTime)
		}
		if d.LastMessageAt.Before(d.LastSessionStartedAt) {
			v.tags = append(v.tags, tagFirstSession)
		}
		d.MessageCountAllTime++
		d.LastMessageAt = latest(d.LastMessageAt, h.at)
	}
	d.LastSeenAt = latest(d.LastSeenAt, h.at)
	d.LastSessionActivityAt = latest(d.LastSessionActivityAt, h.at)
	applyAttributes(d, h.attributes)
	return v
}

// remember notes in the document what was decided for an event that was counted: its tags, the rules that held, and
// the cooldowns that they began.
func (v *userUpdate) remember(correlationID string, rules []string) {
	v.rules = rules
	recent := append(slices.Clone(v.doc.Recent), store.Seen{ID: store.NewSeenID(correlationID), Tags: v.tags, Rules: rules})
	v.doc.Recent = recent[max(0, len(recent)-maxRecent):]
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// applyAttributes takes what an event tells about the user over into the document. A name is replaced by what the platform that
// knows the user says; an e-mail address is filled in only where there is none, because users are found by it.
func applyAttributes(d *store.User, f attributes) {
	if f.displayName != "" && (f.authoritative || d.DisplayName == "") {
		d.DisplayName = f.displayName
	}
	if d.Email == "" {
		d.Email = f.email
	}
	for name, value := range f.profile {
		old, known := d.Profile[name]
		if old == value || known && !f.authoritative || !known && len(d.Profile) >= maxProfileEntries {
			continue
		}
		d.Profile = maps.Clone(d.Profile)
		if d.Profile == nil {
			d.Profile = map[string]string{}
		}
		d.Profile[name] = value
	}
	if f.hasRoles {
		d.Roles, d.RolesMeta = mergeRoles(d.Roles, d.RolesMeta, string(f.platform), f.roles)
	}
}

// mergeRoles puts what a platform says now in the place of what it said before. Roles that somebody gave by hand, in
// meta under "manual" or in the list without an entry in meta, stay; the latter are noted in meta, so that they stay
// theirs also when the platform gives the same role and takes it away again.
func mergeRoles(roles []string, meta map[string][]string, platform string, given []string) ([]string, map[string][]string) {
	meta = maps.Clone(meta)
	if meta == nil {
		meta = map[string][]string{}
	}
	hand := manualRoles(roles, meta)
	for who, list := range map[string][]string{manual: hand, platform: given} {
		if len(list) == 0 {
			delete(meta, who)
		} else {
			meta[who] = list
		}
	}
	all := slices.Clone(hand)
	for _, who := range slices.Sorted(maps.Keys(meta)) {
		for _, role := range meta[who] {
			if !slices.Contains(all, role) {
				all = append(all, role)
			}
		}
	}
	return all, meta
}

// manualRoles are the roles that somebody gave by hand: in meta under "manual", or in the list without an entry in meta.
func manualRoles(roles []string, meta map[string][]string) []string {
	explained := map[string]bool{}
	for _, list := range meta {
		for _, role := range list {
			explained[role] = true
		}
	}
	given := slices.Clone(meta[manual])
	for _, role := range roles {
		if !explained[role] {
			given = append(given, role)
		}
	}
	return given
}

// cooldownKey names a rule in a channel. It is a hash, because a channel's name may be long and hold anything.
func cooldownKey(rule, channel string) string {
	return digest.Of("cooldown", rule, channel)[:16]
}

// cooldowns is which rules are silent for one user in one channel. It does not change the map that it is made of.
type cooldowns struct {
	until   map[string]time.Time
	channel string
	at      time.Time
}

func (c cooldowns) silent(rule string) bool {
	return c.at.Before(c.until[cooldownKey(rule, c.channel)])
}

// after is what is to be kept once the rules with these cooldowns held: they and those that are not over.
func (c cooldowns) after(began map[string]time.Duration) map[string]time.Time {
	kept := map[string]time.Time{}
	for key, until := range c.until {
		if c.at.Before(until) {
			kept[key] = until
		}
	}
	for rule, d := range began {
		kept[cooldownKey(rule, c.channel)] = c.at.Add(d)
	}
	if len(kept) > maxCooldowns {
		keys := slices.SortedFunc(maps.Keys(kept), func(a, b string) int { return kept[a].Compare(kept[b]) })
		for _, key := range keys[:len(kept)-maxCooldowns] {
			delete(kept, key)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return kept
}
