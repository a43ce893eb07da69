package enrichment

import (
	"maps"
	"slices"
	"strings"
	"time"

	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// The tags of an event's user, in addition to the document's tags. These tags belong to the event and are not stored in
// the field tags. tagProvider is a prefix: PROVIDER_TWITCH for twitch, PROVIDER_API_GATEWAY for api-gateway.
const (
	tagNew          = "NEW_USER"              // never seen before this event
	tagReturning    = "RETURNING_USER"        // seen before this event
	tagFirstAllTime = "FIRST_ALLTIME_MESSAGE" // the user's first message ever
	tagFirstSession = "FIRST_SESSION_MESSAGE" // the user's first message in this session
	tagProvider     = "PROVIDER_"
)

const (
	// maxRecent is the number of events remembered by a document. Pub/Sub's ten attempts take at most an hour. An event
	// followed by maxRecent others of the same user before its redelivery is counted a second time.
	maxRecent = 64

	// maxCooldowns is the number of cooldowns stored in a document. The earliest to end are dropped first.
	maxCooldowns = 128

	// maxPlaces is the number of places with roles stored in a document.
	maxPlaces = 32
)

// observation holds the parts of an event that change the user's document.
type observation struct {
	correlationID string
	at            time.Time
	message       bool // a chat message of the user
	attributes    attributes
}

// isUserMessage reports whether an event is a chat message of a person.
func isUserMessage(e *event.Event) bool {
	return e.Message != nil && (e.Message.Role == "" || e.Message.Role == event.RoleUser)
}

// userUpdate is a user's document after an event.
type userUpdate struct {
	doc      store.User
	tags     []string
	repeated bool     // the event was counted before, and doc is unchanged
	rules    []string // ids of the rules that held when the event was counted
}

// countEvent counts an event in a user's document. A session ends sessionLength after its last event. For an event
// counted before, countEvent changes nothing and returns the stored tags and rules.
func countEvent(doc store.User, user subject, o observation, sessionLength time.Duration) userUpdate {
	hash := store.NewSeenID(o.correlationID)
	if i := slices.IndexFunc(doc.Recent, func(s store.Seen) bool { return s.ID == hash }); i >= 0 {
		return userUpdate{doc: doc, tags: doc.Recent[i].Tags, repeated: true, rules: doc.Recent[i].Rules}
	}
	u := userUpdate{doc: doc}
	d := &u.doc
	if d.Provider == "" {
		d.Provider = string(user.person.Platform())
	}
	u.tags = []string{tagProvider + strings.ToUpper(strings.ReplaceAll(user.provider(*d), "-", "_"))}
	if d.FirstSeenAt.IsZero() {
		d.FirstSeenAt = o.at
		u.tags = append(u.tags, tagNew)
	} else {
		u.tags = append(u.tags, tagReturning)
	}
	if d.LastSessionActivityAt.IsZero() || o.at.Sub(d.LastSessionActivityAt) >= sessionLength {
		d.SessionCount++
		d.LastSessionStartedAt = o.at
		d.LastSessionID = digest.Of("session", user.person.String(), o.at.Format(time.RFC3339Nano))
	}
	if o.message {
		if d.MessageCountAllTime == 0 {
			u.tags = append(u.tags, tagFirstAllTime)
		}
		if d.LastMessageAt.Before(d.LastSessionStartedAt) {
			u.tags = append(u.tags, tagFirstSession)
		}
		d.MessageCountAllTime++
		d.LastMessageAt = latest(d.LastMessageAt, o.at)
	}
	d.LastSeenAt = latest(d.LastSeenAt, o.at)
	d.LastSessionActivityAt = latest(d.LastSessionActivityAt, o.at)
	applyAttributes(d, o.attributes)
	return u
}

// remember adds the counted event to the document, with its tags and the rules that held.
func (u *userUpdate) remember(correlationID string, rules []string) {
	u.rules = rules
	recent := append(slices.Clone(u.doc.Recent), store.Seen{ID: store.NewSeenID(correlationID), Tags: u.tags, Rules: rules})
	u.doc.Recent = recent[max(0, len(recent)-maxRecent):]
}

// latest returns the later time.
func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// applyAttributes copies an event's attributes into the document. Only the user's own platform replaces an existing name.
// An existing e-mail address is never replaced, because users are found by their address.
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
		d.RolesIn = storeRoles(d.RolesIn, f.place, f.roles)
		d.Roles, d.RolesMeta = mergeRoles(*d, string(f.platform), f.roles)
	}
}

// mergeRoles replaces the roles given earlier by a platform. Manual roles stay: the roles under "manual" in meta, and
// the roles without an entry in meta. Roles without an entry get one, so that a role stays manual even if the platform
// gives the same role and revokes it.
//
// The results are the fields roles and rolesMeta of the document. Revisions without rolesIn read a platform's roles there.
func mergeRoles(d store.User, platform string, given []string) ([]string, map[string][]string) {
	meta := maps.Clone(d.RolesMeta)
	if meta == nil {
		meta = map[string][]string{}
	}
	hand := d.ManualRoles()
	for source, list := range map[string][]string{store.Manual: hand, platform: given} {
		if len(list) == 0 {
			delete(meta, source)
		} else {
			meta[source] = list
		}
	}
	all := slices.Clone(hand)
	for _, source := range slices.Sorted(maps.Keys(meta)) {
		for _, role := range meta[source] {
			if !slices.Contains(all, role) {
				all = append(all, role)
			}
		}
	}
	return all, meta
}

// storeRoles returns the roles by place with the given roles in a place. Places without roles are left out. If there are
// too many places, another place is dropped: its roles are stored again with the user's next message there.
func storeRoles(all map[string][]string, place string, given []string) map[string][]string {
	all = maps.Clone(all)
	if all == nil {
		all = map[string][]string{}
	}
	delete(all, place)
	if len(given) > 0 {
		for _, other := range slices.Sorted(maps.Keys(all)) {
			if len(all) < maxPlaces {
				break
			}
			delete(all, other)
		}
		all[place] = given
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// cooldownKey identifies a rule at a place. The key is a hash, because a place's name may be long and hold any bytes.
func cooldownKey(rule, place string) string {
	return digest.Of("cooldown", rule, place)[:16]
}

// cooldowns holds the cooldowns of one user at the place of one event. Its methods do not change the map until.
type cooldowns struct {
	until   map[string]time.Time
	place   string // the channel, or webRooms
	channel string // the place in cooldowns of older revisions
	at      time.Time
}

// webRooms is the place of all rooms of web clients. A client opens rooms freely, so a cooldown per room would be none.
const webRooms = string(identity.APIGateway)

func newCooldowns(until map[string]time.Time, e *event.Event, at time.Time) cooldowns {
	c := cooldowns{until: until, place: e.Channel, channel: e.Channel, at: at}
	if identity.PlatformOf(e.Source) == identity.APIGateway {
		c.place = webRooms
	}
	return c
}

// active reports whether the rule's cooldown is still running.
func (c cooldowns) active(rule string) bool {
	return c.at.Before(c.until[cooldownKey(rule, c.place)]) || c.at.Before(c.until[cooldownKey(rule, c.channel)])
}

// after returns the cooldowns to store once rules held: the new cooldowns, by rule id, and the unfinished old ones.
func (c cooldowns) after(began map[string]time.Duration) map[string]time.Time {
	kept := map[string]time.Time{}
	for key, until := range c.until {
		if c.at.Before(until) {
			kept[key] = until
		}
	}
	for rule, d := range began {
		kept[cooldownKey(rule, c.place)] = c.at.Add(d)
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
