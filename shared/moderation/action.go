// Package moderation is what may be done to people and to what they said: an action, asked for by an event of the type
// [Type], allowed by the enrichment, carried out once by the gateway of its platform, and recorded for ever.
//
//	event moderation.action.v1, or a rule with an action
//	  → enrichment: may who asked do that there?            no: dead letter "forbidden"
//	  → egress event with an [Command]: the action, and who asked for it, by which right
//	  → the platform's gateway: an [Executor] claims the delivery, records that it begins, acts, records what came of it,
//	    and settles
//
// What a client or a rule asks for is an [Action], read by [Parse] or [Fields.Parse]; what a gateway is to do is an
// [Command], read by [Read]. An action never names who asks for it: that is added where it is known.
package moderation

import (
	"errors"
	"fmt"
	"maps"
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

// Type is the type of an event that asks for an action, and of the egress event that orders it.
const Type = "moderation.action.v1"

// Kind is what is to be done.
type Kind string

// The kinds.
const (
	Ban     Kind = "ban"     // the person is kept out until somebody lets them in again
	Timeout Kind = "timeout" // the person can say nothing for some time
	Unban   Kind = "unban"   // a ban or a time-out ends
	Delete  Kind = "delete"  // one message is taken away
)

// The platforms' limits.
const (
	// maxTwitchTimeout and maxTwitchReason are of https://dev.twitch.tv/docs/api/reference/#ban-user: 2 weeks, in
	// seconds, and characters.
	maxTwitchTimeout = 1_209_600
	maxTwitchReason  = 500
	// maxDiscordTimeout is of communication_disabled_until, 28 days
	// (https://docs.discord.com/developers/resources/guild#modify-guild-member), and maxDiscordReason of the header
	// X-Audit-Log-Reason (https://docs.discord.com/developers/resources/audit-log#audit-log-entry-object).
	maxDiscordTimeout = 28 * 24 * 60 * 60
	maxDiscordReason  = 512
)

// MaxReason is how many characters, in UTF-16 units, a reason may have on every platform.
const MaxReason = min(maxTwitchReason, maxDiscordReason)

// Action is something that is to be done, and has been checked: a platform may still refuse it, but not for its form.
type Action struct {
	Kind      Kind            `json:"action"`
	Channel   string          `json:"channel"`                  // where: "twitch:" and a channel's name, "discord:" and a channel's id
	User      identity.UserID `json:"userId,omitzero"`          // to whom, on the channel's platform; for a message that is deleted it may be zero
	Login     string          `json:"login,omitzero"`           // their name, on Twitch alone, where the id is not known; then User is zero
	MessageID string          `json:"messageId,omitzero"`       // the platform's, of a message that is deleted; else empty
	Seconds   int             `json:"durationSeconds,omitzero"` // of a time-out, from 1; else 0
	Reason    string          `json:"reason,omitzero"`          // for the platform's own log and the person; at most MaxReason characters in one line
}

// Platform is where the action is carried out.
func (a Action) Platform() identity.Platform {
	room, _ := identity.Parse(a.Channel) // which it is, or it would be no action
	return room.Platform()
}

// Room is what the platform itself calls the channel: Twitch a name, Discord a number.
func (a Action) Room() string {
	room, _ := identity.Parse(a.Channel)
	return room.ID()
}

// String says it for logs, without the reason, which is people's words.
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

// Fields is an action as somebody wrote it, by the names that it has in a payload. The empty text is a field that is
// not there.
type Fields struct {
	Action          string
	Channel         string
	UserID          string // may leave the platform out, which is the channel's
	Login           string // may begin with @
	MessageID       string
	DurationSeconds string
	Reason          string
}

// Parse reads the payload of an event that asks for an action. channel is the event's own, for a payload that names
// none. The error joins an [*event.FieldError] for each field that is wrong, named as payload.userId. A member that
// means nothing is wrong, too: what somebody believes to have said is never passed over.
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

// Parse checks the fields, and makes of them what they mean. The error joins an [*event.FieldError] for each field that
// is wrong, by its name in a payload.
func (f Fields) Parse() (Action, error) {
	var p problems
	a := p.action(f)
	return a, p.join("")
}

// problems are what is wrong with an action.
type problems []*event.FieldError

func (p *problems) bad(field, format string, args ...any) {
	if !slices.ContainsFunc(*p, func(e *event.FieldError) bool { return e.Field == field }) { // the first is the cause of the others
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

// fields reads the members of a payload. A null is a member that is not there.
func (p *problems) fields(raw map[string]jsontext.Value) (f Fields) {
	texts := map[string]*string{
		"action": &f.Action, "channel": &f.Channel, "userId": &f.UserID, "login": &f.Login, "messageId": &f.MessageID, "reason": &f.Reason,
	}
	for _, name := range slices.Sorted(maps.Keys(raw)) { // so that the same payload has the same error
		v := raw[name]
		field, known := texts[name]
		switch {
		case v.Kind() == 'n':
		case known:
			if v.Kind() != '"' || json.Unmarshal(v, field) != nil {
				p.bad(name, "not a text")
			}
		case name == "durationSeconds":
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

// maxName is the longest name of a member that is repeated in an error.
const maxName = 32

var (
	loginSyntax   = regexp.MustCompile(`^[a-z0-9_]{1,25}$`)
	numberSyntax  = regexp.MustCompile(`^[0-9]{1,20}$`) // ids of Twitch's people; all of Discord's ids
	messageSyntax = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)
)

// action makes an action of its fields. It is one only if there are no problems.
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
	seconds, err := strconv.Atoi(f.DurationSeconds)
	switch {
	case a.Kind != Timeout && f.DurationSeconds != "":
		p.bad("durationSeconds", "only for a timeout")
	case a.Kind != Timeout:
	case f.DurationSeconds == "":
		p.bad("durationSeconds", "missing")
	case err != nil:
		p.bad("durationSeconds", "not a whole number")
	case seconds < 1 || seconds > longest:
		p.bad("durationSeconds", "not between 1 and %d", longest)
	}
	a.Seconds = seconds

	switch n := answer.UTF16Length(f.Reason); {
	case n > MaxReason:
		p.bad("reason", "%d characters, the most is %d", n, MaxReason)
	case !utf8.ValidString(f.Reason) || strings.ContainsFunc(f.Reason, unicode.IsControl):
		p.bad("reason", "not one line of text")
	}
	return a
}

// channel checks where it is to be done, and gives the platform, or none.
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
		p.bad("channel", "no channel of Twitch or Discord, where alone there are actions")
	}
	return ""
}

// person checks to whom it is to be done.
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

// Line makes a reason of any text: in one line, and as long as it may be.
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
	return strings.TrimSpace(answer.Truncate(strings.Join(words, " "), MaxReason))
}
