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
	texts [len(actionFields)][]piece // in the order of actionFields
}

// actionFields are the fields of an action that are templates, with a text that each may have.
var actionFields = [...]struct {
	name     string
	possible string
	of       func(*moderation.Fields) *string
}{
	{"channel", "", func(f *moderation.Fields) *string { return &f.Channel }},
	{"userId", "1", func(f *moderation.Fields) *string { return &f.UserID }},
	{"login", "somebody", func(f *moderation.Fields) *string { return &f.Login }},
	{"messageId", "1", func(f *moderation.Fields) *string { return &f.MessageID }},
	{"durationSeconds", "1", func(f *moderation.Fields) *string { return &f.DurationSeconds }},
	{"reason", "reason", func(f *moderation.Fields) *string { return &f.Reason }},
}

// actionTemplates are the templates of an action, in the order of actionFields.
func actionTemplates(a *store.RuleAction) []string {
	return []string{a.Channel, a.UserID, a.Login, a.MessageID, digits(a.DurationSeconds), a.Reason}
}

// digits gives what is a number or a text in the document as a text.
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

func compileAction(env *cel.Env, a *store.RuleAction) (*action, error) {
	c := &action{kind: a.Action}
	possible := moderation.Fields{Action: a.Action}
	fixed := true // the channel is known now
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
		*actionFields[i].of(&possible) = source
		if !literal {
			*actionFields[i].of(&possible) = actionFields[i].possible
		}
	}
	// What is wrong whatever the event says is told now. Where nobody knows the platform yet, it may be wrong on one.
	channels := []string{possible.Channel}
	if !fixed {
		channels = []string{"twitch:somebody", "discord:1"}
	}
	var wrong error
	for _, possible.Channel = range channels {
		_, err := possible.Parse()
		if err == nil {
			return c, nil
		}
		wrong = cmp.Or(wrong, err)
	}
	return nil, fmt.Errorf("action: %w", wrong)
}

// fill makes an action of an event.
func (c *action) fill(in map[string]any) (moderation.Action, error) {
	f := moderation.Fields{Action: c.kind}
	for i, field := range actionFields {
		text, err := fill(c.texts[i], in)
		if err != nil {
			return moderation.Action{}, fmt.Errorf("action.%s: %w", field.name, err)
		}
		*field.of(&f) = strings.TrimSpace(text)
	}
	f.Reason = moderation.Line(f.Reason)
	if f.Channel == "" {
		f.Channel = in["event"].(*view).Channel
	}
	a, err := f.Parse()
	if err != nil {
		return moderation.Action{}, fmt.Errorf("action: %w", err)
	}
	return a, nil
}
