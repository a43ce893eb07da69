// Package deadletters is the command with which an operator looks at dead letters and decides about them. It works
// against Google Cloud and, where PUBSUB_EMULATOR_HOST and FIRESTORE_EMULATOR_HOST are set, against emulators.
package deadletters

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/redrive"
	"parley.internal/shared/store"
	"parley.internal/shared/telemetry"
)

// Config is what the command reads from the environment.
type Config struct {
	config.Deployment
	delivery.Config
}

// Validate checks both parts.
func (c Config) Validate() error { return errors.Join(c.Deployment.Validate(), c.Config.Validate()) }

// selection is the flags that say which dead letters are meant.
type selection struct {
	reason, status, since, until string
	limit                        int
	all                          bool
}

func (s *selection) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&s.reason, "reason", "", "only with this `REASON` (gateway deadletters --help lists them)")
	fs.StringVar(&s.since, "since", "", "given up since this `TIME`: RFC 3339, or how long ago (90m)")
	fs.StringVar(&s.until, "until", "", "given up before this `TIME`")
}

// parse makes a selection of ids and flags. now is what "ago" counts from.
func (s *selection) parse(ids []string, now time.Time) (deadletter.Filter, error) {
	sel := deadletter.Filter{IDs: ids, Reason: deadletter.Reason(s.reason), Limit: s.limit}
	var errs []error
	if s.reason != "" && !known(sel.Reason) {
		errs = append(errs, fmt.Errorf("--reason: there is no %q; gateway deadletters --help lists them", s.reason))
	}
	switch s.status {
	case "", "all":
	case string(deadletter.Open), string(deadletter.Redriving), string(deadletter.Redriven):
		sel.Status = deadletter.Status(s.status)
	default:
		errs = append(errs, fmt.Errorf("--status: %q is not open, redriving, redriven or all", s.status))
	}
	var err error
	if sel.From, err = moment(s.since, now); err != nil {
		errs = append(errs, fmt.Errorf("--since: %w", err))
	}
	if sel.Until, err = moment(s.until, now); err != nil {
		errs = append(errs, fmt.Errorf("--until: %w", err))
	}
	if len(ids) > 0 && (s.reason != "" || s.since != "" || s.until != "" || s.all) {
		errs = append(errs, errors.New("give ids, or flags that select, not both"))
	}
	return sel, errors.Join(errs...)
}

// some refuses to take everything by accident.
func (s *selection) some(ids []string) error {
	if len(ids) == 0 && s.reason == "" && s.since == "" && s.until == "" && !s.all {
		return errors.New("say which: ids, --reason, --since, --until, or --all")
	}
	return nil
}

func known(r deadletter.Reason) bool {
	for _, k := range deadletter.Reasons {
		if k.Reason == r {
			return true
		}
	}
	return false
}

func moment(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(s); err == nil {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither a time (2006-01-02T15:04:05Z) nor how long ago (90m)", s)
	}
	return at, nil
}

// Command makes the command with its subcommands.
func Command(environ []string) *cobra.Command {
	var b strings.Builder
	b.WriteString("Looks at what was given up, and decides about it.\n\nReasons:\n")
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range deadletter.Reasons {
		fmt.Fprintf(tw, "  %s\t%s\n", r.Reason, r.Meaning)
	}
	tw.Flush() // into memory
	b.WriteString("\nEnvironment:\n")
	if err := config.Usage[Config](&b); err != nil {
		panic(err) // into memory
	}
	cmd := &cobra.Command{Use: "deadletters", Aliases: []string{"deadletter", "dl"}, Short: "Look at dead letters, redrive or purge them", Long: b.String()}
	cmd.AddCommand(listCommand(environ), showCommand(environ), redriveCommand(environ), purgeCommand(environ))
	return cmd
}

// session is the connections of one run of the command.
type session struct {
	box      *deadletter.Store
	redriver *redrive.Redriver
	close    func() error
}

func connect(ctx context.Context, environ []string, stderr io.Writer) (*session, error) {
	c, err := config.Load[Config](environ)
	if err != nil {
		return nil, err
	}
	c.LogFormat = "text"
	client, err := store.Connect(ctx, c.Deployment)
	if err != nil {
		return nil, err
	}
	if err := store.Reach(ctx, client); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	b, err := bus.Open(ctx, c.Deployment, "operator", telemetry.NewLogger(stderr, c.Deployment, false))
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	box := deadletter.NewStore(client, time.Now)
	ledger := delivery.NewLedger(client, "operator", time.Now)
	return &session{
		box:      box,
		redriver: redrive.New(client, box, ledger, delivery.NewSender(ledger, b, c.Config, time.Now), b, c.Config),
		close:    func() error { return errors.Join(b.Close(), client.Close()) },
	}, nil
}

func listCommand(environ []string) *cobra.Command {
	var s selection
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, the latest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			sel, err := s.parse(nil, time.Now())
			if err != nil {
				return err
			}
			session, err := connect(cmd.Context(), environ, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, session.close()) }()
			out := cmd.OutOrStdout()
			if asJSON {
				enc := json.NewEncoder(out)
				return session.box.List(cmd.Context(), sel, func(l deadletter.DeadLetter) error { return enc.Encode(view(l)) })
			}
			tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "ID\tAT\tSTATUS\tATTEMPTS\tREASON\tSOURCE\tCORRELATION\tERROR")
			n := 0
			err = session.box.List(cmd.Context(), sel, func(l deadletter.DeadLetter) error {
				n++
				_, err := fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", l.ID, l.At.Local().Format(time.DateTime), l.Status, l.Attempts, l.Reason, l.Source, l.CorrelationID, short(l.Message))
				return err
			})
			err = errors.Join(err, tw.Flush())
			if err == nil && n == s.limit {
				fmt.Fprintf(cmd.ErrOrStderr(), "there may be more: --limit %d\n", 10*s.limit)
			}
			return err
		},
	}
	s.register(cmd)
	cmd.Flags().StringVar(&s.status, "status", string(deadletter.Open), "open, redriving, redriven or all")
	cmd.Flags().IntVar(&s.limit, "limit", 100, "how many at most; 0 for all")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	return cmd
}

func short(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 80 {
		return string(r[:79]) + "…"
	}
	return s
}

// shown is a dead letter as it is shown: its data as text where it is text.
type shown struct {
	ID            string               `json:"id"`
	Status        deadletter.Status    `json:"status"`
	Reason        deadletter.Reason    `json:"reason"`
	Error         string               `json:"error,omitempty"`
	Source        string               `json:"source"`
	CorrelationID string               `json:"correlationId,omitempty"`
	OriginalType  string               `json:"originalType,omitempty"`
	LastStepID    string               `json:"lastStepId,omitempty"`
	SlipSummary   string               `json:"slipSummary,omitempty"`
	Topic         string               `json:"topic,omitempty"`
	Delivery      bool                 `json:"delivery"`
	Attempts      int                  `json:"attempts"`
	FirstAt       time.Time            `json:"firstAt"`
	At            time.Time            `json:"at"`
	Redrives      []deadletter.Redrive `json:"redrives,omitempty"`
	Attributes    map[string]string    `json:"attributes,omitempty"`
	Preview       string               `json:"preview,omitempty"`
	Event         json.RawMessage      `json:"event,omitempty"`
}

func view(l deadletter.DeadLetter) shown {
	v := shown{
		ID: l.ID, Status: l.Status, Reason: l.Reason, Error: l.Message, Source: l.Source, CorrelationID: l.CorrelationID,
		OriginalType: l.OriginalType, LastStepID: l.LastStepID, SlipSummary: l.SlipSummary, Topic: l.Topic, Delivery: l.Delivery,
		Attempts: l.Attempts, FirstAt: l.FirstAt, At: l.At, Redrives: l.Redrives, Attributes: l.Attributes,
	}
	if json.Valid(l.Data) {
		v.Event = l.Data
	} else {
		v.Preview = l.Preview
	}
	return v
}

func showCommand(environ []string) *cobra.Command {
	var raw bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one dead letter with its whole event",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			session, err := connect(cmd.Context(), environ, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, session.close()) }()
			l, err := session.box.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if raw {
				_, err := cmd.OutOrStdout().Write(l.Data)
				return err
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(view(l))
		},
	}
	cmd.Flags().BoolVar(&raw, "raw", false, "only the message's bytes, as they came")
	return cmd
}

func redriveCommand(environ []string) *cobra.Command {
	var s selection
	var o redrive.Options
	cmd := &cobra.Command{
		Use:   "redrive [ID...]",
		Short: "Try dead letters again, each once",
		RunE: func(cmd *cobra.Command, ids []string) (err error) {
			if err := s.some(ids); err != nil {
				return err
			}
			if o.Selection, err = s.parse(ids, time.Now()); err != nil {
				return err
			}
			session, err := connect(cmd.Context(), environ, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, session.close()) }()
			done, failed := 0, 0
			err = session.redriver.Run(cmd.Context(), o, func(r redrive.Result) {
				if r.Err != nil {
					failed++
					fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", r.Letter.ID, r.Err)
					return
				}
				done++
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s\n", r.Letter.ID, r.Letter.Reason, r.Letter.CorrelationID)
			})
			verb := "redriven"
			if o.DryRun {
				verb = "would be redriven"
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d %s, %d not\n", done, verb, failed)
			if err == nil && failed > 0 {
				err = fmt.Errorf("%d of %d could not be redriven", failed, done+failed)
			}
			return err
		},
	}
	s.register(cmd)
	cmd.Flags().BoolVar(&s.all, "all", false, "every open one")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only tell which")
	cmd.Flags().StringVar(&o.By, "by", whoami(), "who decided, for the record")
	cmd.Flags().Float64Var(&o.PerSecond, "rate", 10, "how many a second at most")
	return cmd
}

// whoami is the login name, or empty.
func whoami() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

func purgeCommand(environ []string) *cobra.Command {
	var s selection
	var yes bool
	cmd := &cobra.Command{
		Use:   "purge [ID...]",
		Short: "Remove dead letters for good",
		RunE: func(cmd *cobra.Command, ids []string) (err error) {
			if err := s.some(ids); err != nil {
				return err
			}
			sel, err := s.parse(ids, time.Now())
			if err != nil {
				return err
			}
			session, err := connect(cmd.Context(), environ, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, session.close()) }()
			n := 0
			err = session.box.List(cmd.Context(), sel, func(l deadletter.DeadLetter) error {
				n++
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s\n", l.ID, l.Reason, l.CorrelationID)
				if !yes {
					return nil
				}
				return session.box.Purge(cmd.Context(), l)
			})
			if yes {
				fmt.Fprintf(cmd.ErrOrStderr(), "%d purged\n", n)
			} else {
				fmt.Fprintf(cmd.ErrOrStderr(), "%d would be purged: say --yes to do it\n", n)
			}
			return err
		},
	}
	s.register(cmd)
	cmd.Flags().StringVar(&s.status, "status", "all", "open, redriving, redriven or all")
	cmd.Flags().BoolVar(&s.all, "all", false, "every one")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it; without, only tell which")
	return cmd
}
