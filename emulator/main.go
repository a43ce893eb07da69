// The emulator command runs all of Parley on this machine, without an account: Pub/Sub and Firestore, the functions,
// gateway instances and a chat page, in one process. For usage, run the command with --help.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"parley.internal/emulator/stack"
	"parley.internal/shared/config"
	"parley.internal/shared/telemetry"
)

//go:embed seed.yaml
var defaultSeed []byte

func main() {
	stdout := os.Stdout
	// The functions framework also writes to standard output, but standard output is only for the greeting and the reports.
	if null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0); err == nil {
		os.Stdout = null
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(stdout, os.Stderr, os.Environ()).ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "emulator:", err)
		os.Exit(1)
	}
}

// flags holds the command line flags.
type flags struct {
	gateways                    int
	listen, pubsub, firestore   string
	google, platforms           bool
	seed, data, readyFile, logs string
	retention, sweep            time.Duration
}

// command builds the command line.
func command(stdout, stderr *os.File, environ []string) *cobra.Command {
	var f flags
	root := &cobra.Command{
		Use:   "emulator",
		Short: "Run all of Parley on this machine",
		Long: `Runs all of Parley on this machine, in one process and without an account: Pub/Sub and Firestore, the
functions, gateway instances, and a chat page. It prints the addresses and a token for each seeded user.
Ctrl-C stops it.

The parts read the same environment variables as in the cloud (MODEL_PROVIDER, BUS_PREFIX and so on): emulator
variables explains them.`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), f, stdout, stderr, environ)
		},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	f.register(root, environ)
	root.AddCommand(loadCommand(stdout, stderr, environ))
	root.AddCommand(&cobra.Command{
		Use: "variables", Short: "Explain the environment variables of each part", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return stack.Usage(cmd.OutOrStdout()) },
	})
	root.AddCommand(soakCommand(stdout, stderr, environ))
	root.AddCommand(partCommand(stdout, stderr, environ))
	return root
}

// register adds the flags of a Parley to a command.
func (f *flags) register(cmd *cobra.Command, environ []string) {
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.IntVar(&f.gateways, "gateways", 1, "number of gateway instances")
	fs.StringVar(&f.listen, "listen", "127.0.0.1:8080", "`ADDR` of the first gateway; the others take the next ports (port 0: free ports)")
	fs.StringVar(&f.pubsub, "pubsub", lookup(environ, "PUBSUB_EMULATOR_HOST", stack.Embedded), "embedded, or `HOST:PORT` of a running Pub/Sub emulator")
	fs.StringVar(&f.firestore, "firestore", lookup(environ, "FIRESTORE_EMULATOR_HOST", stack.Embedded), "embedded, or `HOST:PORT` of a running Firestore emulator")
	fs.BoolVar(&f.google, "google", false, "start Google's own emulators (needs gcloud with both emulators, and Java)")
	fs.BoolVar(&f.platforms, "platforms", true, "start fakes of Twitch and Discord, unless the environment configures the real platforms")
	fs.StringVar(&f.seed, "seed", "", "`FILE` with the first users, rules and personalities (default: emulator/seed.yaml)")
	fs.StringVar(&f.data, "data", "", "`DIR` for the content of the embedded servers, kept over restarts")
	fs.DurationVar(&f.retention, "retention", 15*time.Minute, "how long the embedded Firestore keeps deliveries, dead letters and gaps after their last change; 0 for as long as production, days")
	fs.StringVar(&f.readyFile, "ready-file", "", "`FILE` for the addresses and tokens as JSON, written when everything is ready")
	fs.StringVar(&f.logs, "log", "text", "text or json")
	fs.DurationVar(&f.sweep, "sweep", time.Minute, "interval of the ledger sweep, which dead-letters overdue deliveries; 0 for never")
}

// lookup returns the last value of a variable, like os.Getenv.
func lookup(environ []string, name, fallback string) string {
	for _, v := range slices.Backward(environ) {
		if len(v) > len(name)+1 && v[:len(name)+1] == name+"=" {
			return v[len(name)+1:]
		}
	}
	return fallback
}

// check returns all errors in the flags.
func (f flags) check() error {
	var errs []error
	if f.gateways < 1 {
		errs = append(errs, errors.New("--gateways: at least 1"))
	}
	if err := stack.CheckListen(f.listen, f.gateways); err != nil {
		errs = append(errs, fmt.Errorf("--listen: %w", err))
	}
	for _, server := range []struct{ flag, addr string }{{"--pubsub", f.pubsub}, {"--firestore", f.firestore}} {
		if _, _, err := net.SplitHostPort(server.addr); err != nil && server.addr != stack.Embedded {
			errs = append(errs, fmt.Errorf("%s: %q is neither %s nor HOST:PORT", server.flag, server.addr, stack.Embedded))
		}
	}
	if f.google && (f.pubsub != stack.Embedded || f.firestore != stack.Embedded || f.data != "") {
		errs = append(errs, errors.New("--google starts both emulators itself: leave out --pubsub, --firestore and --data"))
	}
	if f.logs != "text" && f.logs != "json" {
		errs = append(errs, fmt.Errorf("--log: %q is not text or json", f.logs))
	}
	if f.retention < 0 {
		errs = append(errs, errors.New("--retention: negative; 0 for as long as production"))
	}
	if f.sweep < 0 {
		errs = append(errs, errors.New("--sweep: negative; 0 for never"))
	}
	return errors.Join(errs...)
}

// start starts the stack described by the flags.
func (f flags) start(ctx context.Context, stderr *os.File, environ []string) (*stack.Stack, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	source := defaultSeed
	if f.seed != "" {
		var err error
		if source, err = os.ReadFile(f.seed); err != nil {
			return nil, fmt.Errorf("--seed: %w", err)
		}
	}
	seed, err := stack.ParseSeed(source)
	if err != nil {
		return nil, fmt.Errorf("--seed %s: %w", f.seed, err)
	}
	environ = append(slices.Clone(environ), "LOG_FORMAT="+f.logs)
	began := time.Now()
	return stack.Start(ctx, stack.Options{
		Gateways: f.gateways, Listen: f.listen, PubSub: f.pubsub, Firestore: f.firestore, Google: f.google,
		Seed: seed, DataDir: f.data, Retention: f.retention, Environ: environ, Sweep: f.sweep, Platforms: f.platforms,
		Log: telemetry.NewLogger(stderr, config.Deployment{
			LogFormat: f.logs, LogLevel: lookup(environ, "LOG_LEVEL", "info"),
		}, isatty.IsTerminal(stderr.Fd())),
		Progress: func(what string) { fmt.Fprintf(stderr, "%6.2fs %s\n", time.Since(began).Seconds(), what) },
	})
}

// run runs a Parley until ctx is done.
func run(ctx context.Context, f flags, stdout io.Writer, stderr *os.File, environ []string) error {
	began := time.Now()
	s, err := f.start(ctx, stderr, environ)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%6.2fs ready\n", time.Since(began).Seconds())
	if f.readyFile != "" {
		if err := writeReady(f.readyFile, s.Ready); err != nil {
			return errors.Join(err, s.Stop())
		}
	}
	if err := greet(stdout, s.Ready); err != nil {
		return errors.Join(err, s.Stop())
	}
	return s.Run(ctx)
}

// greet prints the addresses and the tokens.
func greet(w io.Writer, r stack.Ready) error {
	var err error
	say := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format, args...)
		}
	}
	say("\nParley is ready. Ctrl-C stops it.\n\n")
	for i, gw := range r.Gateways {
		say("  chat %d     %s\n  socket %d   %s\n", i+1, gw.Page, i+1, gw.WS)
		switch {
		case gw.OpenMetrics:
			say("  metrics %d  %s (for this machine only)\n", i+1, gw.Metrics)
		case gw.Metrics != "":
			say("  metrics %d  %s (Authorization: Bearer, with the value of METRICS_TOKEN)\n", i+1, gw.Metrics)
		}
	}
	if r.Playground != "" {
		say("  platforms  %s (speak as a user on Twitch or Discord)\n", r.Playground)
	}
	say("\n  The part after # in an address is a secret of this start. It unlocks the demo users on the chat page, and the page of\n")
	say("  the platforms. It is also the token of the API of the platforms.\n")
	say("\n  Tokens (Authorization: Bearer TOKEN), for 24 hours:\n")
	for _, user := range slices.Sorted(maps.Keys(r.Tokens)) {
		say("    %-20s %s\n", user, r.Tokens[user])
	}
	say("\n  Dead letters:\n    GOOGLE_CLOUD_PROJECT=%s PUBSUB_EMULATOR_HOST=%s FIRESTORE_EMULATOR_HOST=%s go run ./gateway deadletters list\n", r.Project, r.PubSub, r.Firestore)
	say("\n  Say \"!ask how are you?\" or mention @parley, and the personality answers. \"!help\" lists more.\n\n")
	return err
}

// writeReady writes the file in one step, so a waiting reader never sees half of the file. Only the user of this process
// may read the file, because the file contains the tokens.
func writeReady(path string, r stack.Ready) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write --ready-file: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".ready-*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("write --ready-file: %w", err)
	}
	_, err = tmp.Write(append(data, '\n'))
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write --ready-file: %w", err), os.Remove(tmp.Name()))
	}
	return nil
}
