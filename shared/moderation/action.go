// Package moderation describes moderation actions: on people, and on their messages. An event of the type [Type]
// requests an action, the enrichment authorizes it, the gateway of the platform executes it once, and a record is kept
// forever.
//
//	event moderation.action.v1, or a rule with an action
//	  → enrichment: may the requester do this in the channel?  no: dead letter "forbidden"
//	  → egress event with a [Command]: the action, the requester, and the permission
//	  → the platform's gateway: package moderator claims the delivery, records the beginning, acts, records the outcome,
//	    and settles
//
// A client or a rule requests an [Action]; start with [Parse] or [Fields.Parse]. A gateway executes a [Command]; start
// with [Read]. An action never names the requester: the enrichment adds the requester from the authenticated event. The
// package does not know how a platform executes an action.
package moderation

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// Type is the type of an event that requests an action, and of the egress event with the command.
const Type = "moderation.action.v1"

// Kind is the kind of an action.
type Kind string

// The kinds.
const (
	Ban     Kind = "ban"     // the person is kept out until an unban
	Timeout Kind = "timeout" // the person can write nothing for some time
	Unban   Kind = "unban"   // a ban or a time-out ends
	Delete  Kind = "delete"  // a message is deleted
)

// The platforms' limits.
const (
	// maxTwitchTimeout and maxTwitchReason are from https://dev.twitch.tv/docs/api/reference/#ban-user: 2 weeks, in
	// seconds, and characters.
	maxTwitchTimeout = 1_209_600
	maxTwitchReason  = 500
	// maxDiscordTimeout is the limit of communication_disabled_until, 28 days
	// (https://docs.discord.com/developers/resources/guild#modify-guild-member), and maxDiscordReason of the header
	// X-Audit-Log-Reason (https://docs.discord.com/developers/resources/audit-log#audit-log-entry-object).
	maxDiscordTimeout = 28 * 24 * 60 * 60
	maxDiscordReason  = 512
)

// maxReason is the length of a reason accepted by every platform, in UTF-16 units.
const maxReason = min(maxTwitchReason, maxDiscordReason)

// Action is a checked action. A platform may still refuse the action, but not because of its form.
type Action struct {
	Kind      Kind            `json:"action"`
	Channel   string          `json:"channel"`                  // "twitch:" and a channel's name, or "discord:" and a channel's id
	User      identity.UserID `json:"userId,omitzero"`          // the person, on the channel's platform; optional for Delete
	Login     string          `json:"login,omitzero"`           // the person's name, on Twitch only, instead of User
	MessageID string          `json:"messageId,omitzero"`       // the platform's id of the message; for Delete only
	Seconds   int             `json:"durationSeconds,omitzero"` // for Timeout only, from 1
	Reason    string          `json:"reason,omitzero"`          // for the platform's own log and the person; one line of at most maxReason UTF-16 units
}

// Platform returns the platform of the channel.
func (a Action) Platform() identity.Platform {
	room, _ := identity.Parse(a.Channel) // valid in a checked action
	return room.Platform()
}

// Room returns the platform's own name of the channel: on Twitch a name, on Discord a number.
func (a Action) Room() string {
	room, _ := identity.Parse(a.Channel)
	return room.ID()
}

// String describes the action for logs. The reason is left out, because people write the reason.
func (a Action) String() string {
	whom := a.User.String()
	if a.Login != "" {
		whom = "twitch @" + a.Login
	}
	switch a.Kind {
	case Delete:
		return fmt.Sprintf("delete message %s in %s", a.MessageID, a.Channel)
	case Timeout:
		return fmt.Sprintf("timeout %s in %s for %d s", whom, a.Channel, a.Seconds)
	}
	return fmt.Sprintf("%s %s in %s", a.Kind, whom, a.Channel)
}

// Fields is an unchecked action. The names are the names in a payload. An empty text is a missing field.
type Fields struct {
	Action          string
	Channel         string
	UserID          string // may leave out the channel's platform
	Login           string // may begin with @
	MessageID       string
	DurationSeconds string // a whole number: 60, 60.0 or 6e1
	Reason          string
}

// Parse reads the payload of an event that requests an action. channel is the event's channel, for a payload without
// one. The error joins an [*event.FieldError] for each wrong field, with names such as payload.userId. An unknown
// member is wrong, too: no part of a request is silently ignored. Ids may be numbers, and the duration may be a text.
func Parse(payload jsontext.Value, channel string) (Action, error) {
	var raw map[string]jsontext.Value
	if payload.Kind() != '{' || json.Unmarshal(payload, &raw) != nil {
		return Action{}, &event.FieldError{Field: "payload", Reason: "not an object"}
	}
	var p problems
	f := p.fields(raw)
	if f.Channel == "" {
		f.Channel = channel
	}
	a := p.action(f)
	return a, p.join("payload.")
}

// Parse checks the fields and returns the action. The error joins an [*event.FieldError] for each wrong field, with the
// field's name in a payload.
func (f Fields) Parse() (Action, error) {
	var p problems
	a := p.action(f)
	return a, p.join("")
}

// problems collects the wrong fields of an action.
type problems []*event.FieldError

func (p *problems) bad(field, format string, args ...any) {
	if !slices.ContainsFunc(*p, func(e *event.FieldError) bool { return e.Field == field }) { // later errors follow from the first
		*p = append(*p, &event.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)})
	}
}

func (p problems) join(prefix string) error {
	var errs []error
	for _, e := range p {
		errs = append(errs, &event.FieldError{Field: prefix + e.Field, Reason: e.Reason})
	}
	return errors.Join(errs...)
}

// fields reads the members of a payload. A null counts as missing.
func (p *problems) fields(raw map[string]jsontext.Value) (f Fields) {
	texts := map[string]*string{
		"action": &f.Action, "channel": &f.Channel, "userId": &f.UserID, "login": &f.Login, "messageId": &f.MessageID, "reason": &f.Reason,
	}
	for _, name := range slices.Sorted(maps.Keys(raw)) { // the same payload always has the same error
		v := raw[name]
		field, known := texts[name]
		switch {
		case v.Kind() == 'n':
		case v.Kind() == '0' && (name == "userId" || name == "messageId"): // some programs write ids as numbers
			*field = string(v)
		case known:
			if v.Kind() != '"' || json.Unmarshal(v, field) != nil {
				p.bad(name, "not a text")
			}
		case name == "durationSeconds":
			if v.Kind() == '"' && json.Unmarshal(v, &f.DurationSeconds) == nil && f.DurationSeconds != "" {
				continue // some programs write numbers as texts
			}
			if v.Kind() != '0' {
				p.bad(name, "not a number")
			}
			f.DurationSeconds = string(v)
		case len(name) > maxName:
			p.bad("…", "a member with a name of %d bytes, which no action has", len(name))
		default:
			p.bad(name, "no member of an action")
		}
	}
	return f
}

// maxName is the longest member name repeated in an error, in bytes.
const maxName = 32

var (
	loginSyntax   = regexp.MustCompile(`^[a-z0-9_]{1,25}$`)
	numberSyntax  = regexp.MustCompile(`^[0-9]{1,20}$`) // ids of Twitch users; all ids of Discord
	messageSyntax = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)
)

// action makes an action from its fields. The action is valid only without problems.
func (p *problems) action(f Fields) Action {
	a := Action{Kind: Kind(f.Action), Channel: f.Channel, MessageID: f.MessageID, Reason: f.Reason}
	switch a.Kind {
	case Ban, Timeout, Unban, Delete:
	case "":
		p.bad("action", "missing")
	default:
		p.bad("action", "not one of ban, timeout, unban, delete")
	}
	platform := p.channel(f.Channel)
	p.person(&a, f, platform)

	switch {
	case a.Kind == Delete && f.MessageID == "":
		p.bad("messageId", "missing")
	case a.Kind != Delete && f.MessageID != "":
		p.bad("messageId", "only for a delete")
	case platform == identity.Discord && f.MessageID != "" && !numberSyntax.MatchString(f.MessageID),
		f.MessageID != "" && !messageSyntax.MatchString(f.MessageID):
		p.bad("messageId", "not an id of a message there")
	}

	longest := maxTwitchTimeout
	if platform == identity.Discord {
		longest = maxDiscordTimeout
	}
	seconds, whole := parseSeconds(f.DurationSeconds)
	switch {
	case a.Kind != Timeout && f.DurationSeconds != "":
		p.bad("durationSeconds", "only for a timeout")
	case a.Kind != Timeout:
	case f.DurationSeconds == "":
		p.bad("durationSeconds", "missing")
	case !whole:
		p.bad("durationSeconds", "not a whole number")
	case seconds < 1 || seconds > longest:
		p.bad("durationSeconds", "not between 1 and %d", longest)
	}
	a.Seconds = seconds

	switch n := answer.UTF16Length(f.Reason); {
	case n > maxReason:
		p.bad("reason", "%d characters, the most is %d", n, maxReason)
	case !utf8.ValidString(f.Reason) || strings.ContainsFunc(f.Reason, unicode.IsControl):
		p.bad("reason", "not one line of text")
	}
	return a
}

// decimalSyntax matches a number as JSON and Go write it.
var decimalSyntax = regexp.MustCompile(`^[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)

// parseSeconds reads a whole number in any notation of decimalSyntax: 60, 60.0 and 6e1 are equal. A number outside of
// the range of int32 becomes the nearest number in the range: every platform's limit is lower.
func parseSeconds(text string) (seconds int, whole bool) {
	text = strings.TrimSpace(text)
	if !decimalSyntax.MatchString(text) {
		return 0, false
	}
	f, _ := strconv.ParseFloat(text, 64) // infinite if out of range
	if f != math.Trunc(f) {
		return 0, false
	}
	return int(max(math.MinInt32, min(f, math.MaxInt32))), true
}

// channel checks the channel and returns its platform, or an empty one.
func (p *problems) channel(name string) identity.Platform {
	room, err := identity.Parse(name)
	switch {
	case name == "":
		p.bad("channel", "missing")
	case err != nil:
		p.bad("channel", "not of the form twitch:NAME or discord:ID")
	case room.Platform() == identity.Twitch && loginSyntax.MatchString(room.ID()),
		room.Platform() == identity.Discord && numberSyntax.MatchString(room.ID()):
		return room.Platform()
	default:
		p.bad("channel", "not a channel of Twitch or Discord; other platforms have no actions")
	}
	return ""
}

// person checks the person.
func (p *problems) person(a *Action, f Fields, platform identity.Platform) {
	if f.UserID != "" && f.Login != "" {
		p.bad("login", "beside a userId")
	}
	if f.UserID == "" && f.Login == "" && a.Kind != Delete {
		p.bad("userId", "missing")
	}
	if f.UserID != "" && platform != "" {
		id, err := identity.Resolve(f.UserID, platform)
		switch {
		case err != nil:
			p.bad("userId", "not of the form %s:NUMBER", platform)
		case id.Platform() != platform:
			p.bad("userId", "of another platform than the channel, which is %s's", platform)
		case !numberSyntax.MatchString(id.ID()):
			p.bad("userId", "not a number of %s", platform)
		}
		a.User = id
	}
	if f.Login != "" && platform != "" {
		a.Login = strings.ToLower(strings.TrimPrefix(strings.TrimSpace(f.Login), "@"))
		switch {
		case platform != identity.Twitch:
			p.bad("login", "only for Twitch")
		case !loginSyntax.MatchString(a.Login):
			p.bad("login", "not a name on Twitch")
		}
	}
}

// Line makes a reason from any text: a single line of at most [maxReason] units.
func Line(text string) string {
	words := strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD")))
	return strings.TrimSpace(answer.Truncate(strings.Join(words, " "), maxReason))
}
