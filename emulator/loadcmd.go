package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"parley.internal/emulator/load"
	"parley.internal/emulator/stack"
)

func loadCommand(stdout, stderr *os.File, environ []string) *cobra.Command {
	var (
		f                  flags
		attach             string
		messages, inFlight int
	)
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Ask many questions and measure the answers",
		Long: `Asks questions as every seeded user at once. It prints the latency of the answers, the lost and doubled answers and, on
the embedded servers, the Pub/Sub and Firestore operations per message. It starts its own Parley, or uses the Parley
of the ready file given by --attach.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if messages < 1 || inFlight < 1 {
				return errors.New("--messages and --in-flight: at least 1")
			}
			ctx := cmd.Context()
			var ready stack.Ready
			var counts func() stack.Counts
			if attach != "" {
				data, err := os.ReadFile(attach)
				if err != nil {
					return fmt.Errorf("--attach: %w", err)
				}
				if err := json.Unmarshal(data, &ready); err != nil {
					return fmt.Errorf("--attach %s: %w", attach, err)
				}
			} else {
				// no rate limit: a load test asks faster than a person types
				s, err := f.start(ctx, stderr, append([]string{"WS_RATE=1000000", "WS_BURST=1000000", "LOG_LEVEL=warn"}, environ...))
				if err != nil {
					return err
				}
				running, stop := context.WithCancel(ctx)
				ended := make(chan error, 1)
				go func() { ended <- s.Run(running) }()
				defer func() {
					stop()
					err = errors.Join(err, <-ended)
				}()
				ready = s.Ready
				counts = s.Counts
			}
			o := load.Options{Tokens: ready.Tokens, Messages: messages, InFlight: inFlight, Patience: 30 * time.Second}
			for _, gw := range ready.Gateways {
				o.URLs = append(o.URLs, gw.WS)
			}
			step := max(messages/10, 1)
			o.Progress = func(answered int) {
				if answered%step == 0 {
					fmt.Fprintf(stderr, "%d of %d answered\n", answered, messages)
				}
			}
			// the first question of each user includes the cost of connections and caches
			warm := o
			warm.Messages, warm.Progress = len(o.Tokens), nil
			if _, err := load.Run(ctx, warm); err != nil {
				return fmt.Errorf("warm up: %w", err)
			}
			var before, after stack.Counts
			if counts != nil {
				before = counts()
			}
			result, err := load.Run(ctx, o)
			if counts != nil {
				after = counts()
			}
			return errors.Join(err, report(stdout, result, after.Sub(before)))
		},
	}
	f.register(cmd, environ)
	cmd.Flags().Lookup("listen").DefValue = "127.0.0.1:0"
	f.listen = "127.0.0.1:0"
	cmd.Flags().StringVar(&attach, "attach", "", "the ready `FILE` of a running Parley")
	cmd.Flags().IntVar(&messages, "messages", 1000, "number of questions")
	cmd.Flags().IntVar(&inFlight, "in-flight", 1, "open questions per user")
	return cmd
}

func report(w io.Writer, r load.Result, c stack.Counts) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "sent\tanswered\tlost\tdoubled\tp50\tp99\tmax\tmessages/s\n")
	fmt.Fprintf(tw, "%d\t%d\t%d\t%d\t%s\t%s\t%s\t%.0f\n", r.Sent, r.Answered, r.Lost, r.Doubled,
		r.Percentile(50).Round(10*time.Microsecond), r.Percentile(99).Round(10*time.Microsecond), r.Percentile(100).Round(10*time.Microsecond),
		float64(r.Answered)/r.Elapsed.Seconds())
	if c != (stack.Counts{}) {
		per := func(n int64) float64 { return float64(n) / float64(max(r.Sent, 1)) }
		fmt.Fprintf(tw, "\nper message\tpublished\tpushed\tpulled\treads\twrites\tdeletes\tFirestore calls\n")
		fmt.Fprintf(tw, "\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\n", per(c.Published), per(c.Pushed), per(c.Delivered-c.Pushed), per(c.Reads), per(c.Writes), per(c.Deletes), per(c.RoundTrips))
	}
	return tw.Flush()
}
