package identity_test

import (
	"errors"
	"strings"
	"testing"

	"parley.internal/shared/identity"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name, in string
		platform identity.Platform
		id       string
	}{
		{"twitch", "twitch:123", identity.Twitch, "123"},
		{"discord", "discord:456", identity.Discord, "456"},
		{"own client", "api-gateway:abc", identity.APIGateway, "abc"},
		{"the id keeps its colons", "api-gateway:a:b:c", identity.APIGateway, "a:b:c"},
		{"an id that looks like another platform's", "api-gateway:twitch:9", identity.APIGateway, "twitch:9"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := identity.Parse(tt.in)
			if err != nil {
				t.Fatalf("Parse(%q): %v", tt.in, err)
			}
			if got.Platform() != tt.platform || got.ID() != tt.id {
				t.Errorf("Parse(%q) = %q, %q; want %q, %q", tt.in, got.Platform(), got.ID(), tt.platform, tt.id)
			}
			if got.String() != tt.in {
				t.Errorf("Parse(%q).String() = %q", tt.in, got.String())
			}
		})
	}
}

func TestParseRejectsInvalidIDs(t *testing.T) {
	for name, in := range map[string]string{
		"nothing":           "",
		"no platform":       "123",
		"no id":             "twitch:",
		"unknown platform":  "myspace:tom",
		"capital platform":  "Twitch:123",
		"slash":             "twitch:a/b",
		"control character": "twitch:a\x00b",
		"not UTF-8":         "twitch:\xff",
		"too long":          "twitch:" + strings.Repeat("x", identity.MaxLen),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := identity.Parse(in); !errors.Is(err, identity.ErrInvalid) {
				t.Errorf("Parse(%q) = %v, %v; want ErrInvalid", in, got, err)
			}
		})
	}
}

func TestResolveNeverPrefixesTwice(t *testing.T) {
	tests := []struct {
		in   string
		def  identity.Platform
		want string
	}{
		{"123", identity.Twitch, "twitch:123"},
		{"twitch:123", identity.APIGateway, "twitch:123"},
		{"twitch:123", identity.Twitch, "twitch:123"},
		{"a:b", identity.APIGateway, "api-gateway:a:b"},
	}
	for _, tt := range tests {
		got, err := identity.Resolve(tt.in, tt.def)
		if err != nil || got.String() != tt.want {
			t.Errorf("Resolve(%q, %q) = %v, %v; want %v", tt.in, tt.def, got, err, tt.want)
		}
	}
}

func TestPlatformOf(t *testing.T) {
	for source, want := range map[string]identity.Platform{
		"api-gateway":         identity.APIGateway,
		"ingress.twitch":      identity.Twitch,
		"Ingress.Discord.bot": identity.Discord,
		"twilio":              identity.Twilio,
		"ingress.matrix.room": "matrix",
		"ingress.matrix":      "matrix",
		"somewhere":           "",
		"":                    "",
	} {
		if got := identity.PlatformOf(source); got != want {
			t.Errorf("PlatformOf(%q) = %q; want %q", source, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"twitch:123", "api-gateway:a:b", ":", "discord:", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := identity.Parse(s)
		if err != nil {
			return
		}
		if u.String() != s {
			t.Fatalf("Parse(%q).String() = %q", s, u.String())
		}
		again, err := identity.Resolve(u.String(), identity.Discord)
		if err != nil || again != u {
			t.Fatalf("Resolve(%q) = %v, %v; want it unchanged", u, again, err)
		}
	})
}
