package personality

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"parley.internal/shared/answer"
	"parley.internal/shared/chattext"
	"parley.internal/shared/event"
)

// promptSpec is the request of one personality annotation: a text, or the name of a personality. Both are empty if the
// annotation has neither.
type promptSpec struct {
	text string // inline; takes precedence
	name string // a stored personality
}

// maxName bounds a personality's name, in bytes. A query could not find a name of more than 1,500 bytes, because Firestore
// indexes only the first 1,500 bytes of a field (https://firebase.google.com/docs/firestore/quotas).
const maxName = 256

// promptSpecs reads an event's personality annotations, at most limit, in their order: by score, by time, by id. dropped
// is the number of further annotations.
//
// An annotation's value is a name, never a text. Otherwise anyone able to set a value could instruct the model.
func promptSpecs(annotations []event.Annotation, limit int) (chosen []promptSpec, dropped int) {
	var list []event.Annotation
	for _, a := range annotations {
		if a.Kind == event.KindPersonality {
			list = append(list, a)
		}
	}
	slices.SortStableFunc(list, func(a, b event.Annotation) int {
		return cmp.Or(compareScores(a.Score, b.Score), a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	if len(list) > limit {
		list, dropped = list[:limit], len(list)-limit
	}
	for _, a := range list {
		chosen = append(chosen, promptSpecOf(a))
	}
	return chosen, dropped
}

// compareScores orders scores ascending; a missing score is last.
func compareScores(a, b *float64) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return cmp.Compare(*a, *b)
}

// promptSpecOf reads one annotation. A name longer than maxName gives an empty spec.
func promptSpecOf(a event.Annotation) promptSpec {
	if text, ok := event.Text(a.Payload, "text"); ok && !blank(text) {
		return promptSpec{text: text}
	}
	name, _ := event.Text(a.Payload, "name")
	name = strings.TrimSpace(cmp.Or(name, a.Value))
	if len(name) > maxName {
		return promptSpec{}
	}
	return promptSpec{name: name}
}

// clamp removes invalid UTF-8 and NULs (no API accepts NULs) and cuts the text to maxChars characters. The second result
// reports whether the text was cut.
func clamp(text string, maxChars int) (string, bool) {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, ""), "\x00", "")
	clamped := answer.TruncateCodePoints(text, maxChars)
	return clamped, len(clamped) < len(text)
}

// shorten is clamp for human readers: an ellipsis marks a cut.
func shorten(text string, maxChars int) string {
	text, cut := clamp(text, maxChars)
	if !cut {
		return text
	}
	text, _ = clamp(text, maxChars-1)
	return strings.TrimRightFunc(text, unicode.IsSpace) + "…"
}

// compose combines the base prompt and the personalities' texts into one instruction.
func compose(how Composition, base string, texts []string) string {
	parts := slices.Clone(texts)
	switch {
	case how == Replace && len(texts) > 0:
	case how == Prepend:
		parts = append(parts, base)
	default:
		parts = append([]string{base}, parts...)
	}
	parts = slices.DeleteFunc(parts, blank)
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return strings.Join(parts, "\n\n")
}

// question returns the question for the model: the message's text, or else the payload's text, or else a description of
// the external event. A text in which nothing is visible counts as missing. The question is empty if the event has none
// of the three.
func question(e *event.Event, c PromptConfig) string {
	text := ""
	if e.Message != nil {
		text = chattext.Trim(e.Message.Text)
	}
	if text == "" {
		text, _ = event.Text(e.Payload, "text")
		text = chattext.Trim(text)
	}
	if text == "" {
		text = describeExternalEvent(e.ExternalEvent)
	} else {
		text = withoutCall(text, c.CommandPrefix, c.Mentions)
	}
	text, _ = clamp(strings.TrimSpace(text), c.MaxQuestion)
	return text
}

// describeExternalEvent describes an event without a message, such as a follow.
func describeExternalEvent(x *event.ExternalEvent) string {
	if x == nil || x.Kind == "" && len(x.Payload) == 0 {
		return ""
	}
	text := "This happened: " + cmp.Or(x.Kind, "an event")
	if x.Source != "" {
		text += " on " + x.Source
	}
	if len(x.Payload) > 0 {
		text += ". Its details: " + string(x.Payload)
	}
	return text
}

// withoutCall removes a leading mention and a leading command word, in either order. A text without further words stays
// unchanged.
func withoutCall(text, prefix string, mentions []string) string {
	rest := strings.TrimSpace(text)
	rest = withoutMention(rest, mentions)
	rest = withoutCommand(rest, prefix)
	return withoutMention(rest, mentions)
}

// withoutMention removes a leading mention, with a following comma or colon.
func withoutMention(text string, mentions []string) string {
	for _, m := range mentions {
		if m = strings.TrimSpace(m); m == "" || len(text) <= len(m) || !strings.EqualFold(text[:len(m)], m) {
			continue
		}
		after := strings.TrimLeft(text[len(m):], ",:")
		if rest := strings.TrimSpace(after); rest != "" && (len(rest) < len(after) || len(after) < len(text)-len(m)) {
			return rest
		}
	}
	return text
}

// withoutCommand removes a leading command word.
func withoutCommand(text, prefix string) string {
	if prefix == "" || !strings.HasPrefix(text, prefix) {
		return text
	}
	i := strings.IndexFunc(text, unicode.IsSpace)
	if i <= len(prefix) {
		return text // the prefix alone ("! what"), or no further words
	}
	return strings.TrimSpace(text[i:])
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }

func isHTTP(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}
