package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"parley.internal/emulator/soak"
	"parley.internal/emulator/stack"
)

func soakCommand(stdout, stderr *os.File, environ []string) *cobra.Command {
	o := soak.Options{Environ: environ, Pace: soak.Long}
	var minutes float64
	var only []string
	cmd := &cobra.Command{
		Use:   "soak",
		Short: "Break everything for minutes, and count whether each answer came once",
		Long: `Runs gateways and functions as processes on the embedded servers, kills and stops them, cuts their network, has
Pub/Sub and Firestore fail, and sets their clocks wrong, while users ask questions. At the end it compares what the
users got with what Firestore holds: every answer has to be delivered once or dead-lettered once. It ends with 1 if one
is lost or doubled, or anything else is not as it should be.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			seed, err := stack.ParseSeed(defaultSeed)
			if err != nil {
				return err
			}
			o.Documents = seed
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
			for _, name := range only {
				if !slices.ContainsFunc(soak.Kinds, func(k soak.Explained) bool { return string(k.Kind) == name }) {
					return fmt.Errorf("--only: there is no fault %q; the report lists all", name)
				}
				o.Kinds = append(o.Kinds, soak.Kind(name))
			}
			o.For = time.Duration(minutes * float64(time.Minute))
			began, last := time.Now(), ""
			o.Progress = func(p soak.Progress) {
				line := fmt.Sprintf("%s: %d asked, %d answered, %d faults", p.Phase, p.Asked, p.Answered, p.Faults)
				if line != last {
					fmt.Fprintf(stderr, "%6.1fs %s\n", time.Since(began).Seconds(), line)
				}
				last = line
			}
			fmt.Fprintf(stderr, "seed %d; the parts log in %s\n", o.Seed, o.Dir)
			report, err := soak.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := report.Write(stdout); err != nil {
				return fmt.Errorf("report: %w", err)
			}
			if !report.Clean() {
				return errors.New("the promise was broken")
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.Float64Var(&minutes, "minutes", 5, "how long to go on asking, at least")
	fs.Uint64Var(&o.Seed, "seed", 0, "of the faults: the same `S` draws the same ones (a random one if not given)")
	fs.IntVar(&o.Messages, "messages", 0, "how many questions to ask, at least")
	fs.IntVar(&o.Faults, "faults", 0, "how many faults to make, at least")
	fs.StringSliceVar(&only, "only", nil, "make no other faults than `KINDS`, comma-separated, as the report calls them: roll for example")
	fs.IntVar(&o.Gateways, "gateways", 3, "how many gateways at a time")
	fs.IntVar(&o.Users, "users", 200, "how many users; each tenth goes away before the answers come")
	fs.IntVar(&o.InFlight, "in-flight", 16, "how many questions a user has open at a time")
	fs.StringVar(&o.Dir, "logs", "", "`DIR` for the parts' logs")
	fs.DurationVar(&o.Pace.Gap, "gap", o.Pace.Gap, "between the beginnings of two faults, on average")
	return cmd
}
