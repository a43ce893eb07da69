package model

import (
	"context"
	"fmt"
	"strings"
)

// embeddedName is the model name in replies of the embedded model.
const embeddedName = "embedded"

// Embedded is a deterministic model without a network. It understands nothing. Its reply quotes the request, so that a
// person who tries Parley sees the input of a model.
type Embedded struct{}

// maxExcerpt bounds each quoted part of the request, in characters.
const maxExcerpt = 400

// Generate fails only if ctx is done.
func (Embedded) Generate(ctx context.Context, r Request) (Reply, error) {
	if err := ctx.Err(); err != nil {
		return Reply{}, failure{err: err}.toError(ctx)
	}
	var b strings.Builder
	if name := plainName(r.User); name != "" {
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
	name := embeddedName
	if r.Model != "" {
		name += ":" + r.Model
	}
	return Reply{Text: b.String(), Model: name}, nil
}

// excerpt returns a text on one line, cut to maxExcerpt characters.
func excerpt(s string) string {
	line := []rune(strings.Join(strings.Fields(s), " "))
	if len(line) > maxExcerpt {
		return string(line[:maxExcerpt-1]) + "…"
	}
	return string(line)
}
