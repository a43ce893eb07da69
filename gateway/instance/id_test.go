package instance

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"parley.internal/shared/topology"
)

// With the revision's name as the id, two instances would share a subscription and a broadcast would reach only one.
func TestInstanceIDIsUnique(t *testing.T) {
	cloud := strings.Repeat("0123456789abcdef", 7) // the form of Cloud Run's ids
	for _, test := range []struct {
		name       string
		onCloudRun bool
		answer     string
		err        error
		want       string // empty for a random one
	}{
		{"Cloud Run", true, cloud, nil, cloud},
		{"Cloud Run, metadata server unreachable", true, "", errors.New("no route"), ""},
		{"Cloud Run, id not allowed in a filter", true, `x" OR attributes.route = "y`, nil, ""},
		{"elsewhere", false, "not asked", nil, ""},
	} {
		seen := map[string]bool{}
		for range 2 {
			got, err := newID(t.Context(), test.onCloudRun, func(context.Context) (string, error) { return test.answer, test.err }, slog.New(slog.DiscardHandler))
			if err != nil || !topology.ValidInstance(got) || test.want != "" && got != test.want || test.want == "" && (got == test.answer || seen[got]) {
				t.Errorf("%s: id %q, %v", test.name, got, err)
			}
			seen[got] = true
		}
	}
}
