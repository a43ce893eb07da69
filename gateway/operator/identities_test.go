package operator_test

import (
	"bytes"
	"strings"
	"testing"

	"parley.internal/emulator/emulatortest"
	"parley.internal/gateway/operator"
)

func TestLinkListAndUnlink(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		for _, tt := range []struct {
			args      string
			out, fail string
		}{
			{"link discord:6 twitch:5 --by ada", "discord:6 is twitch:5\n", ""},
			{"link api-gateway:eve twitch:5 --by bo", "api-gateway:eve is twitch:5\n", ""},
			{"link discord:6 twitch:9", "", "is linked already, to twitch:5"},
			{"link twitch:7 discord:6", "", "link to that"},
			{"link discord:6", "", "accepts 2 arg"},
			{"link ada bo", "", `"bo" has no platform`},
			{"list twitch:5", "by bo", ""},
			{"list twitch:9", "ID", ""},
			{"list ada", "", "no platform"},
			{"unlink discord:6", "discord:6 is no longer twitch:5\n", ""},
			{"unlink discord:6", "", "is not linked"},
			{"list", "api-gateway:eve", ""},
		} {
			var out bytes.Buffer
			cmd := operator.Identities([]string{"GOOGLE_CLOUD_PROJECT=" + env.Project})
			cmd.SilenceErrors, cmd.SilenceUsage = true, true
			cmd.SetArgs(strings.Fields(tt.args))
			cmd.SetOut(&out)
			cmd.SetErr(&out)
			err := cmd.ExecuteContext(t.Context())
			if (err != nil) != (tt.fail != "") || err != nil && !strings.Contains(err.Error(), tt.fail) {
				t.Errorf("%s: %v; want %q", tt.args, err, tt.fail)
			}
			if want := strings.TrimPrefix(tt.out, "by "); err == nil && !strings.Contains(out.String(), want) {
				t.Errorf("%s: %q lacks %q", tt.args, out.String(), want)
			}
			if tt.args == "list" && strings.Contains(out.String(), "discord:6") {
				t.Errorf("list after unlink still shows the id: %q", out.String())
			}
		}
	}, emulatortest.InEnvironment)
}
