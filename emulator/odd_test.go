package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestOddInputsOnTheCommandLine holds command lines of the emulator with the documented result: a part of the error, or no
// error. Nothing is started.
func TestOddInputsOnTheCommandLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args    string // separated by spaces; _ is an empty argument
		environ []string
		want    string
	}{
		{"", nil, ""},
		{"--gateways 3", nil, ""},
		{"--gateways=3", nil, ""},
		{"--gateways 0", nil, "--gateways: at least 1"},
		{"--gateways -1", nil, "--gateways: at least 1"},
		{"--gateways many", nil, "--gateways"},
		{"--gateways 1.5", nil, "--gateways"},
		{"--gateways", nil, "--gateways"},
		{"--gateways _", nil, "--gateways"},
		{"--gateways 99999999999999999999", nil, "--gateways"},
		{"--gateways 70000", nil, "--listen"},
		{"-gateways 3", nil, "unknown shorthand flag"},
		{"--gateway 3", nil, "unknown flag: --gateway"},
		{"--Gateways 3", nil, "unknown flag"},
		{"--", nil, ""},
		{"-- --gateways 0", nil, "unknown command"},
		{"start", nil, "unknown command"},
		{"--listen 127.0.0.1:0", nil, ""},
		{"--listen :8080", nil, ""},
		{"--listen [::1]:8080", nil, ""},
		{"--listen 8080", nil, "--listen"},
		{"--listen localhost", nil, "--listen"},
		{"--listen ::1:8080", nil, "--listen"},
		{"--listen 127.0.0.1:http", nil, "--listen"},
		{"--listen 127.0.0.1:65536", nil, "--listen"},
		{"--listen 127.0.0.1:-1", nil, "--listen"},
		{"--listen 127.0.0.1:65535 --gateways 2", nil, "--listen"},
		{"--listen _", nil, "--listen"},
		{"--pubsub embedded --firestore embedded", nil, ""},
		{"--pubsub localhost:8085", nil, ""},
		{"--pubsub localhost", nil, "--pubsub"},
		{"--pubsub _", nil, "--pubsub"},
		{"--firestore EMBEDDED", nil, "--firestore"},
		{"--google --pubsub localhost:8085", nil, "--google"},
		{"--google --data dir", nil, "--google"},
		{"--google=maybe", nil, "--google"},
		{"--platforms=false", nil, ""},
		{"--platforms false", nil, "unknown command"},
		{"--log json", nil, ""},
		{"--log xml", nil, "--log"},
		{"--log _", nil, "--log"},
		{"--sweep 0", nil, ""},
		{"--sweep 5s", nil, ""},
		{"--sweep -1s", nil, "--sweep"},
		{"--sweep 5", nil, "--sweep"},
		{"--sweep soon", nil, "--sweep"},
		{"--pubsub embedded", []string{"PUBSUB_EMULATOR_HOST=nowhere"}, ""},
		{"", []string{"PUBSUB_EMULATOR_HOST=nowhere"}, "--pubsub"},
		{"", []string{"FIRESTORE_EMULATOR_HOST=nowhere"}, "--firestore"},
		{"", []string{"PUBSUB_EMULATOR_HOST=nowhere", "PUBSUB_EMULATOR_HOST=localhost:1"}, ""},
		{"", []string{"PUBSUB_EMULATOR_HOST=", "PUBSUB_EMULATOR_HOST"}, ""},
		{"", []string{"", "=", "=x"}, ""},
	} {
		var f flags
		cmd := &cobra.Command{Use: "emulator", Args: cobra.NoArgs, SilenceErrors: true, SilenceUsage: true, RunE: func(*cobra.Command, []string) error { return f.check() }}
		f.register(cmd, tt.environ)
		args := strings.Fields(tt.args)
		for i, a := range args {
			if a == "_" {
				args[i] = ""
			}
		}
		cmd.SetArgs(args)
		err := cmd.Execute()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q with %q: %v; want %q", tt.args, tt.environ, err, tt.want)
		}
	}
}
