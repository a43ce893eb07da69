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

func soakCommand(stdout, stderr *os.File, environ []string) *cobra.Command {
	o := soak.Options{Environ: environ, Pace: soak.Long}
	var minutes float64
	var only, kinds []string
	var faults strings.Builder
	for _, k := range soak.Kinds {
		kinds = append(kinds, string(k.Kind))
		fmt.Fprintf(&faults, "\n  %-22s %s", k.Kind, k.Meaning)
	}
	cmd := &cobra.Command{
		Use:   "soak",
		Short: "Break everything for minutes, and count whether each answer came once",
		Long: `Runs gateways and functions as processes on the embedded servers, kills and stops them, cuts their network, has
Pub/Sub and Firestore fail, and sets their clocks wrong, while users ask questions. At the end it compares what the
users got with what Firestore holds: every answer has to be delivered once or dead-lettered once. It ends with 1 if one
is lost or doubled, or anything else is not as it should be.

Faults:` + faults.String(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Documents, err = stack.ParseSeed(defaultSeed); err != nil {
				return err
			}
			if minutes < 0 || o.Messages < 0 || o.Faults < 0 || minutes == 0 && o.Messages == 0 && o.Faults == 0 {
				return errors.New("--minutes, --messages and --faults: not negative, and one of them more than 0")
			}
			if o.Pace.Gap <= 0 {
				return errors.New("--gap: more than 0")
			}
			for _, name := range only {
				if !slices.Contains(kinds, name) {
					return fmt.Errorf("--only: there is no fault %q, but %s", name, strings.Join(kinds, ", "))
				}
				o.Kinds = append(o.Kinds, soak.Kind(name))
			}
			if err := prepareSoak(cmd, &o.Binary, &o.Dir, &o.Seed, stderr); err != nil {
				return err
			}
			o.For = time.Duration(minutes * float64(time.Minute))
			o.Progress = tellSoak(stderr)
			report, err := soak.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			return judgeSoak(report, stdout)
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.Float64Var(&minutes, "minutes", 5, "how long to go on asking, at least")
	fs.Uint64Var(&o.Seed, "seed", 0, "of the faults: the same `S` draws the same ones (a random one if not given)")
	fs.IntVar(&o.Messages, "messages", 0, "how many questions to ask, at least")
	fs.IntVar(&o.Faults, "faults", 0, "how many faults to make, at least")
	fs.StringSliceVar(&only, "only", nil, "make no other faults than `KINDS`, comma-separated: roll for example")
	fs.IntVar(&o.Gateways, "gateways", 3, "how many gateways at a time")
	fs.IntVar(&o.Users, "users", 200, "how many users; each tenth goes away before the answers come")
	fs.IntVar(&o.InFlight, "in-flight", 16, "how many questions a user has open at a time")
	fs.StringVar(&o.Dir, "logs", "", "`DIR` for the parts' logs")
	fs.DurationVar(&o.Pace.Gap, "gap", o.Pace.Gap, "between the beginnings of two faults, on average")
	cmd.AddCommand(platformsCommand(stdout, stderr, environ))
	return cmd
}

func platformsCommand(stdout, stderr *os.File, environ []string) *cobra.Command {
	o := soak.PlatformOptions{Environ: environ}
	cmd := &cobra.Command{
		Use:   "platforms",
		Short: "Kill gateways while people ask on Twitch and Discord, and count whether each is heard and answered once",
		Long: `Runs gateways as processes, which share the channels of stand-ins for Twitch and Discord, and kills and stops them
while people ask there. At the end it compares what was asked and said with what Firestore holds: every question has to
be heard once and answered once. Twitch keeps no history: what is said there while nobody listens is missed, and has to
lie in a recorded gap. It ends with 1 if anything is lost or doubled.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Documents, err = stack.ParseSeed(defaultSeed); err != nil {
				return err
			}
			if err := prepareSoak(cmd, &o.Binary, &o.Dir, &o.Seed, stderr); err != nil {
				return err
			}
			o.Progress = tellSoak(stderr)
			report, err := soak.RunPlatforms(cmd.Context(), o)
			if err != nil {
				return err
			}
			return judgeSoak(report, stdout)
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.IntVar(&o.Messages, "messages", 1000, "how many questions to ask on each platform, at least")
	fs.IntVar(&o.Faults, "faults", 15, "how many gateways to kill or stop, at least")
	fs.IntVar(&o.Gateways, "gateways", 5, "how many gateways at a time")
	fs.IntVar(&o.Channels, "channels", 20, "how many channels of Twitch")
	fs.IntVar(&o.Guilds, "guilds", 2, "how many servers of Discord, with two channels each")
	fs.DurationVar(&o.Every, "every", 75*time.Millisecond, "between two questions on a platform")
	fs.DurationVar(&o.Gap, "gap", 4*time.Second, "between the beginnings of two faults, on average")
	fs.Uint64Var(&o.Seed, "seed", 0, "of the faults: the same `S` draws the same ones (a random one if not given)")
	fs.StringVar(&o.Dir, "logs", "", "`DIR` for the parts' logs")
	fs.BoolVar(&o.Hurry, "hurry", false, "don't wait for the minute that a claim of a killed gateway holds on Twitch")
	return cmd
}

// prepareSoak fills in what every soak needs and tells which it is.
func prepareSoak(cmd *cobra.Command, binary, dir *string, seed *uint64, stderr io.Writer) (err error) {
	if *binary, err = soak.Executable(); err != nil {
		return err
	}
	if *dir == "" {
		if *dir, err = os.MkdirTemp("", "parley-soak-"); err != nil {
			return fmt.Errorf("make a folder for the logs: %w", err)
		}
	}
	if !cmd.Flags().Changed("seed") {
		*seed = rand.Uint64()
	}
	fmt.Fprintf(stderr, "seed %d; the parts log in %s\n", *seed, *dir)
	return nil
}

// tellSoak writes how far a soak has come.
func tellSoak(stderr io.Writer) func(soak.Progress) {
	began, last := time.Now(), ""
	return func(p soak.Progress) {
		line := fmt.Sprintf("%s: %d asked, %d answered, %d faults", p.Phase, p.Asked, p.Answered, p.Faults)
		if line != last {
			fmt.Fprintf(stderr, "%6.1fs %s\n", time.Since(began).Seconds(), line)
		}
		last = line
	}
}

// judgeSoak writes what came of a soak, and fails where anything is wrong.
func judgeSoak(report interface {
	Write(io.Writer) error
	Clean() bool
}, stdout io.Writer) error {
	if err := report.Write(stdout); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if !report.Clean() {
		return errors.New("the promise was broken")
	}
	return nil
}
