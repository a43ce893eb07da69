package rule

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/cel-go/cel"

	"parley.internal/shared/moderation"
	"parley.internal/shared/store"
)

// action is a compiled store.RuleAction.
type action struct {
	kind  string
	texts [len(actionFields)][]piece // by index in actionFields
}

// actionFields lists the template fields of an action, each with a valid sample value.
var actionFields = [...]struct {
	name   string
	sample string
	of     func(*moderation.Fields) *string
}{
	{"channel", "", func(f *moderation.Fields) *string { return &f.Channel }},
	{"userId", "1", func(f *moderation.Fields) *string { return &f.UserID }},
	{"login", "sample", func(f *moderation.Fields) *string { return &f.Login }},
	{"messageId", "1", func(f *moderation.Fields) *string { return &f.MessageID }},
	{"durationSeconds", "1", func(f *moderation.Fields) *string { return &f.DurationSeconds }},
	{"reason", "reason", func(f *moderation.Fields) *string { return &f.Reason }},
}

// actionTemplates returns the templates of an action, in the order of actionFields.
func actionTemplates(a *store.RuleAction) []string {
	return []string{a.Channel, a.UserID, a.Login, a.MessageID, digits(a.DurationSeconds), a.Reason}
}

// digits returns a number or a text of a document as a text.
func digits(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// compileAction compiles an action and validates it with sample values in place of expressions.
func compileAction(env *cel.Env, a *store.RuleAction) (*action, error) {
	c := &action{kind: a.Action}
	sample := moderation.Fields{Action: a.Action}
	fixed := true // the channel is a literal
	for i, source := range actionTemplates(a) {
		name := actionFields[i].name
		if len(source) > maxSource {
			return nil, fmt.Errorf("action.%s: longer than %d bytes", name, maxSource)
		}
		pieces, err := compileTemplate(env, source)
		if err != nil {
			return nil, fmt.Errorf("action.%s: %w", name, err)
		}
		c.texts[i] = pieces
		literal := len(pieces) == 0 || len(pieces) == 1 && pieces[0].program == nil
		if name == "channel" {
			fixed = literal && source != ""
		}
		*actionFields[i].of(&sample) = source
		if !literal {
			*actionFields[i].of(&sample) = actionFields[i].sample
		}
	}
	// Report errors independent of the event now. If the platform depends on the event, the action must be valid on at
	// least one platform.
	channels := []string{sample.Channel}
	if !fixed {
		channels = []string{"twitch:sample", "discord:1"}
	}
	var invalid error
	for _, sample.Channel = range channels {
		_, err := sample.Parse()
		if err == nil {
			return c, nil
		}
		invalid = cmp.Or(invalid, err)
	}
	return nil, fmt.Errorf("action: %w", invalid)
}

// fill evaluates the templates for an event.
func (c *action) fill(in *input) (moderation.Action, error) {
	f := moderation.Fields{Action: c.kind}
	for i, field := range actionFields {
		text, _, err := fill(c.texts[i], in)
		if err != nil {
			return moderation.Action{}, fmt.Errorf("action.%s: %w", field.name, err)
		}
		*field.of(&f) = strings.TrimSpace(text)
	}
	f.Reason = moderation.Line(f.Reason)
	if f.Channel == "" {
		f.Channel = in.event.Channel
	}
	a, err := f.Parse()
	if err != nil {
		return moderation.Action{}, fmt.Errorf("action: %w", err)
	}
	return a, nil
}
