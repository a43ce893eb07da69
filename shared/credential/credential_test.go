package credential_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"parley.internal/shared/config"
	"parley.internal/shared/credential"
)

func TestNothingPrintsASecret(t *testing.T) {
	token := credential.Token{
		User: user(t, "twitch:1"), Access: credential.NewSecret(marker + "-a"), Refresh: credential.NewSecret(marker + "-r"), Login: "ada",
	}
	type holder struct {
		Token  credential.Token
		hidden credential.Token
		secret credential.Secret
		list   []credential.Token
	}
	h := holder{token, token, token.Access, []credential.Token{token}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{token, &token, token.Access, &token.Access, h, &h, h.hidden, h.secret, h.list, fmt.Errorf("wrapped: %v", token)} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	fmt.Fprintf(&out, "%x %X\n", token.Access, []any{token})
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		slog.New(handler).Info("x", "token", token, "pointer", &token, "secret", token.Access, "holder", h, "list", h.list)
	}
	if err := json.NewEncoder(&out).Encode([]any{token, h, token.Access}); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{marker, fmt.Sprintf("%x", marker), fmt.Sprintf("%X", marker), fmt.Sprint([]byte(marker))[1:20]} {
		if strings.Contains(out.String(), wrong) {
			t.Errorf("%q was printed:\n%s", wrong, out.String())
		}
	}
	if token.Access.Reveal() != marker+"-a" || !(credential.Secret{}).IsZero() || (credential.Secret{}).Reveal() != "" {
		t.Error("a secret doesn't hold its text")
	}
	if !token.Access.Equal(credential.NewSecret(marker+"-a")) || token.Access.Equal(token.Refresh) {
		t.Error("secrets don't compare by their texts")
	}
}

func TestMissingScopesSayWhatToDo(t *testing.T) {
	err := credential.Token{User: user(t, "twitch:1"), Scopes: []string{"chat:read"}}.Require("chat:read", "user:manage:whispers", "user:manage:whispers")
	want := "twitch:1 has not granted user:manage:whispers: log in again as twitch:1 (/oauth/twitch/login) and allow it"
	if err == nil || err.Error() != want {
		t.Errorf("Require = %v\nwant %s", err, want)
	}
	if got := credential.Missing([]string{"a"}, []string{"b", "a", "c", "b"}); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("Missing = %v", got)
	}
}

func TestConfig(t *testing.T) {
	good := map[string]string{"TWITCH_CLIENT_ID": "id", "TWITCH_CLIENT_SECRET": marker, "CREDENTIAL_KEY": "file:/tmp/key"}
	tests := []struct {
		name   string
		change map[string]string
		wrong  string // variable that the error names; empty for none
	}{
		{"complete", nil, ""},
		{"off", map[string]string{"TWITCH_CLIENT_ID": "", "TWITCH_CLIENT_SECRET": "", "CREDENTIAL_KEY": ""}, ""},
		{"no secret", map[string]string{"TWITCH_CLIENT_SECRET": ""}, "TWITCH_CLIENT_SECRET"},
		{"no key", map[string]string{"CREDENTIAL_KEY": ""}, "CREDENTIAL_KEY"},
		{"a key of another kind", map[string]string{"CREDENTIAL_KEY": "/tmp/key"}, "CREDENTIAL_KEY"},
		{"a key in the cloud", map[string]string{"CREDENTIAL_KEY": "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k"}, ""},
		{"in the clear to elsewhere", map[string]string{"TWITCH_OAUTH_URL": "http://example.com"}, "TWITCH_OAUTH_URL"},
		{"in the clear to this machine", map[string]string{"TWITCH_OAUTH_URL": "http://127.0.0.1:8081"}, ""},
		{"no URL", map[string]string{"TWITCH_OAUTH_URL": "id.twitch.tv"}, "TWITCH_OAUTH_URL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var environ []string
			for k, v := range good {
				if changed, ok := tt.change[k]; ok {
					v = changed
				}
				environ = append(environ, k+"="+v)
			}
			for k, v := range tt.change {
				if _, ok := good[k]; !ok {
					environ = append(environ, k+"="+v)
				}
			}
			c, err := config.Load[credential.Config](environ)
			switch {
			case tt.wrong == "" && err != nil:
				t.Error(err)
			case tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong+":")):
				t.Errorf("error = %v; want one about %s", err, tt.wrong)
			case strings.Contains(fmt.Sprintf("%v %+v %#v", c, err, c), marker):
				t.Error("the client secret is printed")
			case tt.wrong == "" && c.Twitch.Enabled() && c.Twitch.ClientSecret.Reveal() != marker:
				t.Error("the client secret is not read")
			}
		})
	}
	c, err := config.Load[credential.Config](nil)
	if err != nil || c.Twitch.OAuthURL != "https://id.twitch.tv" || c.Twitch.Enabled() {
		t.Errorf("with nothing set: %+v, %v", c, err)
	}
}
