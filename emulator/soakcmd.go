package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley.internal/emulator/soak"
	"parley.internal/emulator/stack"
)

// soakCommand runs the soak with WebSocket users.
func soakCommand(stdout, stderr *os.File, environ []string) *cobra.Command {
	o := soak.ClientOptions{Common: soak.Common{Environ: environ}, Pace: soak.Long}
	var minutes float64
	var only, kinds []string
	var faults strings.Builder
	for _, k := range soak.Kinds {
		kinds = append(kinds, string(k.Kind))
		fmt.Fprintf(&faults, "\n  %-22s %s", k.Kind, k.Meaning)
	}
	cmd := &cobra.Command{
		Use:   "soak",
		Short: "Inject faults for minutes, and audit that every answer arrived once",
		Long: `Runs gateways and functions as processes on the embedded servers while users ask questions. It kills and stops the
processes, cuts their network, sets their clocks wrong, and lets Pub/Sub and Firestore fail. At the end it compares the
answers received by the users with the documents in Firestore: every answer must be delivered once or dead-lettered
once. The exit code is 1 if an answer is lost or doubled, or if the audit finds another violation.

Faults:` + faults.String(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if minutes < 0 || o.Messages < 0 || o.Faults < 0 || minutes == 0 && o.Messages == 0 && o.Faults == 0 {
				return errors.New("--minutes, --messages and --faults: must not be negative, and at least one must be positive")
			}
			if o.Pace.Gap <= 0 {
				return errors.New("--gap: must be positive")
			}
			for _, name := range only {
				if !slices.Contains(kinds, name) {
					return fmt.Errorf("--only: unknown fault %q; the faults are %s", name, strings.Join(kinds, ", "))
				}
				o.Kinds = append(o.Kinds, soak.Kind(name))
			}
			if err := prepareSoak(cmd, &o.Common, stderr); err != nil {
				return err
			}
			o.For = time.Duration(minutes * float64(time.Minute))
			report, err := soak.RunClients(cmd.Context(), o)
			if err != nil {
				return err
			}
			return judgeSoak(report, stdout)
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.Float64Var(&minutes, "minutes", 5, "least time to ask, in minutes")
	fs.IntVar(&o.Messages, "messages", 0, "least number of questions")
	fs.IntVar(&o.Faults, "faults", 0, "least number of faults")
	fs.StringSliceVar(&only, "only", nil, "inject only these `KINDS` of faults, comma-separated, for example roll")
	fs.IntVar(&o.Users, "users", 200, "number of users; every tenth user disconnects before the answers arrive")
	fs.IntVar(&o.InFlight, "in-flight", 16, "open questions per user")
	soakFlags(cmd, &o.Common, &o.Pace.Gap, 3, o.Pace.Gap)
	cmd.AddCommand(platformsCommand(stdout, stderr, environ))
	return cmd
}

// platformsCommand runs the soak with people on Twitch and Discord.
func platformsCommand(stdout, stderr *os.File, environ []string) *cobra.Command {
	o := soak.PlatformOptions{Common: soak.Common{Environ: environ}}
	cmd := &cobra.Command{
		Use:   "platforms",
		Short: "Kill gateways while people ask on Twitch and Discord, and audit that every question is ingested and answered once",
		Long: `Runs gateways as processes that share the channels of fakes for Twitch and Discord. It kills and stops gateways while
people ask questions there. At the end it compares the questions and answers with the documents in Firestore: every
question must be ingested once and answered once. Twitch keeps no history: a question without a listening gateway is
missed, and must lie in a recorded gap. The exit code is 1 if a question or an answer is lost or doubled.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := prepareSoak(cmd, &o.Common, stderr); err != nil {
				return err
			}
			report, err := soak.RunPlatforms(cmd.Context(), o)
			if err != nil {
				return err
			}
			return judgeSoak(report, stdout)
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.IntVar(&o.Answers, "answers", 1000, "least number of answers delivered on each platform")
	fs.IntVar(&o.Faults, "faults", 15, "least number of gateways to kill or stop")
	fs.IntVar(&o.Channels, "channels", 20, "number of Twitch channels")
	fs.IntVar(&o.Guilds, "guilds", 2, "number of Discord guilds, with two channels each")
	fs.DurationVar(&o.Every, "every", 75*time.Millisecond, "time between two questions on a platform")
	fs.BoolVar(&o.ExpireClaims, "hurry", false, "let the Twitch claims of killed gateways expire at once instead of after a minute")
	soakFlags(cmd, &o.Common, &o.Gap, 5, 4*time.Second)
	return cmd
}

// soakFlags registers the flags of both soaks.
func soakFlags(cmd *cobra.Command, o *soak.Common, gap *time.Duration, gateways int, defaultGap time.Duration) {
	fs := cmd.Flags()
	fs.IntVar(&o.Gateways, "gateways", gateways, "number of gateways at a time")
	fs.DurationVar(gap, "gap", defaultGap, "average time between the beginnings of two faults")
	fs.Uint64Var(&o.Seed, "seed", 0, "seed `S` of the faults; the same seed draws the same faults (random by default)")
	fs.StringVar(&o.Dir, "logs", "", "`DIR` for the logs of the parts (a new temporary folder by default)")
}

// prepareSoak sets the common options of both soaks, and prints the seed and the log folder.
func prepareSoak(cmd *cobra.Command, o *soak.Common, stderr io.Writer) (err error) {
	if o.Documents, err = stack.ParseSeed(defaultSeed); err != nil {
		return err
	}
	if o.Binary, err = soak.Executable(); err != nil {
		return err
	}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "parley-soak-"); err != nil {
			return fmt.Errorf("make a folder for the logs: %w", err)
		}
	}
	if !cmd.Flags().Changed("seed") {
		o.Seed = rand.Uint64()
	}
	o.Progress = printProgress(stderr)
	fmt.Fprintf(stderr, "seed %d; the logs are in %s\n", o.Seed, o.Dir)
	return nil
}

// printProgress returns a function that prints every change of a soak's progress.
func printProgress(stderr io.Writer) func(soak.Progress) {
	began, last := time.Now(), ""
	return func(p soak.Progress) {
		line := fmt.Sprintf("%s: %d asked, %d answered, %d faults", p.Phase, p.Asked, p.Answered, p.Faults)
		if line != last {
			fmt.Fprintf(stderr, "%6.1fs %s\n", time.Since(began).Seconds(), line)
		}
		last = line
	}
}

// judgeSoak writes a report, and returns an error if the report has a violation.
func judgeSoak(report interface {
	Write(io.Writer) error
	Clean() bool
}, stdout io.Writer) error {
	if err := report.Write(stdout); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if !report.Clean() {
		return errors.New("soak: the audit found violations")
	}
	return nil
}
