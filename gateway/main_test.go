package main

import (
	"context"
	"strings"
	"testing"

	"parley.internal/gateway/instance"
	"parley.internal/shared/config"
)

func TestHelpListsEveryVariable(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), []string{"--help"}, nil, &out); err != nil {
		t.Fatal(err)
	}
	for _, v := range config.Describe[instance.Config]() {
		if !strings.Contains(out.String(), "  "+v.Name+" ") || v.Help == "" {
			t.Errorf("%s has no help text", v.Name)
		}
	}
}

func TestEveryConfigurationErrorIsReportedBeforeStart(t *testing.T) {
	for _, test := range []struct {
		name    string
		args    []string
		environ []string
		want    []string
	}{
		{"nothing set", nil, nil, []string{"GOOGLE_CLOUD_PROJECT"}},
		{"several at once", nil, []string{
			"GOOGLE_CLOUD_PROJECT=p", "PORT=http", "LISTEN_ADDR=nowhere", "WS_RATE=0", "WS_MAX_FRAME=1000000", "WS_MAX_AGE=1m",
			"WS_PING_INTERVAL=0s", "WS_ORIGINS=chat.example,https://x.example/path", "WS_BURST=many", "LOG_LEVEL=loud",
		}, []string{"PORT", "LISTEN_ADDR", "WS_RATE", "WS_MAX_FRAME", "WS_MAX_AGE_SPREAD", "WS_PING_INTERVAL", `"chat.example"`, `"https://x.example/path"`, "WS_BURST", "LOG_LEVEL"}},
		{"an argument", []string{"serve"}, []string{"GOOGLE_CLOUD_PROJECT=p"}, []string{"serve"}},
	} {
		err := run(t.Context(), test.args, test.environ, new(strings.Builder))
		if err == nil {
			t.Errorf("%s: no error", test.name)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q does not name %s", test.name, err, want)
			}
		}
	}
}

func TestMisuseShowsUsage(t *testing.T) {
	for args, want := range map[string]string{
		"frob":                   "usage: gateway",
		"deadletters frob":       "usage: gateway deadletters",
		"deadletters show":       "usage: gateway deadletters show ID",
		"deadletters list extra": "usage: gateway deadletters list",
		"identities link x":      "usage: gateway identities link ID PERSON",
		"identities lnk":         "usage: gateway identities",
	} {
		if err := run(t.Context(), strings.Fields(args), nil, new(strings.Builder)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", args, err, want)
		}
	}
	for _, args := range []string{"deadletters", "identities"} {
		var out strings.Builder
		if err := run(t.Context(), []string{args}, nil, &out); err != nil || !strings.Contains(out.String(), "Available Commands") {
			t.Errorf("%s: %v; output %q; want the help", args, err, out.String())
		}
	}
}

func TestListenFailureIsReported(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	environ := []string{"GOOGLE_CLOUD_PROJECT=p", "LISTEN_ADDR=192.0.2.1:1"} // TEST-NET-1 belongs to no host (RFC 5737)
	if err := run(ctx, nil, environ, new(strings.Builder)); err == nil || !strings.Contains(err.Error(), "192.0.2.1:1") {
		t.Errorf("run = %v", err)
	}
}
