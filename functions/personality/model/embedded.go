package model

import (
	"context"
	"fmt"
	"strings"
)

// EmbeddedName is the name under which the embedded model answers.
const EmbeddedName = "embedded"

// Embedded is a model that needs no network and always says the same to the same request. It understands nothing: its
// reply shows what a model was given, so that a person who tries Parley sees that it arrived.
type Embedded struct{}

// maxExcerpt bounds each part of the request in the reply, in characters.
const maxExcerpt = 400

// Generate never fails, except when ctx is done.
func (Embedded) Generate(ctx context.Context, r Request) (Reply, error) {
	if err := ctx.Err(); err != nil {
		return Reply{}, failure{err: err}.toError(ctx)
	}
	var b strings.Builder
	if name := PlainName(r.User); name != "" {
		fmt.Fprintf(&b, "%s, you asked: “%s”.", name, excerpt(r.Text))
	} else {
		fmt.Fprintf(&b, "You asked: “%s”.", excerpt(r.Text))
	}
	if n := len(r.Turns); n > 0 {
		fmt.Fprintf(&b, " Before that you asked: “%s”.", excerpt(r.Turns[n-1].Question))
	}
	if r.System != "" {
		fmt.Fprintf(&b, " A model would answer by these words: “%s”.", excerpt(r.System))
	}
	name := EmbeddedName
	if r.Model != "" {
		name += ":" + r.Model
	}
	return Reply{Text: b.String(), Model: name}, nil
}

// excerpt is a text on one line, cut.
func excerpt(s string) string {
	line := []rune(strings.Join(strings.Fields(s), " "))
	if len(line) > maxExcerpt {
		return string(line[:maxExcerpt-1]) + "…"
	}
	return string(line)
}
