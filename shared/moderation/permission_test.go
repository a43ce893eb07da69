package moderation_test

import (
	"testing"

	"parley.internal/shared/moderation"
)

func TestPermittedRole(t *testing.T) {
	for _, tt := range []struct {
		name  string
		roles []string
		want  string
	}{
		{"no roles", nil, ""},
		{"other roles", []string{"vip", "subscriber", "Moderator", "moderators", ""}, ""},
		{"moderator", []string{"vip", "moderator"}, "moderator"},
		{"broadcaster", []string{"broadcaster"}, "broadcaster"},
		{"both", []string{"moderator", "broadcaster"}, "broadcaster"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := moderation.PermittedRole(tt.roles); got != tt.want {
				t.Errorf("PermittedRole(%q) = %q; want %q", tt.roles, got, tt.want)
			}
		})
	}
}
