package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/redrive"
	"parley.internal/shared/telemetry"
)

// deadLettersConfig is the environment of the deadletters command.
type deadLettersConfig struct {
	config.Deployment
	delivery.Config
}

// Validate checks both parts.
func (c deadLettersConfig) Validate() error {
	return errors.Join(c.Deployment.Validate(), c.Config.Validate())
}

// DeadLetters makes the command deadletters with its subcommands list, show, redrive and purge.
func DeadLetters(environ []string) *cobra.Command {
	var b strings.Builder
	b.WriteString("Lists dead letters, sends them again (redrive) and deletes them (purge).\n\nReasons:\n")
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range deadletter.Reasons {
		fmt.Fprintf(tw, "  %s\t%s\n", r.Reason, r.Meaning)
	}
	tw.Flush() // writes to memory and cannot fail
	b.WriteString("\nEnvironment:\n")
	if err := config.Usage[deadLettersConfig](&b); err != nil {
		panic(err) // writes to memory and cannot fail
	}
	cmd := &cobra.Command{Use: "deadletters", Aliases: []string{"deadletter", "dl"}, Short: "List, redrive or purge dead letters", Long: b.String()}
	cmd.AddCommand(listDeadLetters(environ), showDeadLetter(environ), redriveDeadLetters(environ), purgeDeadLetters(environ))
	return cmd
}

// selection holds the flags that select dead letters.
type selection struct {
	reason, status, since, until string
	limit                        int
	all                          bool
}

func (s *selection) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&s.reason, "reason", "", "select this `REASON` only (gateway deadletters --help lists the reasons)")
	fs.StringVar(&s.since, "since", "", "select dead letters stored at or after this `TIME`: RFC 3339, or an age such as 90m")
	fs.StringVar(&s.until, "until", "", "select dead letters stored before this `TIME`")
}

// parse makes a filter of ids and flags. An age such as 90m counts back from now. The error names every wrong flag.
func (s *selection) parse(ids []string, now time.Time) (deadletter.Filter, error) {
	filter := deadletter.Filter{IDs: ids, Reason: deadletter.Reason(s.reason), Limit: s.limit}
	var errs []error
	if s.reason != "" && !validReason(filter.Reason) {
		errs = append(errs, fmt.Errorf("--reason: there is no %q; gateway deadletters --help lists the reasons", s.reason))
	}
	switch s.status {
	case "", "all":
	case string(deadletter.Unfinished), string(deadletter.Open), string(deadletter.Redriving), string(deadletter.Redriven):
		filter.Status = deadletter.Status(s.status)
	default:
		errs = append(errs, fmt.Errorf("--status: %q is not unfinished, open, redriving, redriven or all", s.status))
	}
	var err error
	if filter.From, err = parseTime(s.since, now); err != nil {
		errs = append(errs, fmt.Errorf("--since: %w", err))
	}
	if filter.Until, err = parseTime(s.until, now); err != nil {
		errs = append(errs, fmt.Errorf("--until: %w", err))
	}
	if len(ids) > 0 && (s.reason != "" || s.since != "" || s.until != "" || s.all) {
		errs = append(errs, errors.New("give ids, or flags that select, not both"))
	}
	return filter, errors.Join(errs...)
}

// require returns an error if neither an id nor a flag selects anything, so that no command takes every dead letter by
// accident.
func (s *selection) require(ids []string) error {
	if len(ids) == 0 && s.reason == "" && s.since == "" && s.until == "" && !s.all {
		return errors.New("select dead letters: ids, --reason, --since, --until, or --all")
	}
	return nil
}

func validReason(r deadletter.Reason) bool {
	for _, known := range deadletter.Reasons {
		if known.Reason == r {
			return true
		}
	}
	return false
}

// parseTime reads an RFC 3339 time or an age. An empty string is the zero time.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if age, err := time.ParseDuration(s); err == nil {
		return now.Add(-age), nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither a time (2006-01-02T15:04:05Z) nor an age (90m)", s)
	}
	return at, nil
}

// session holds the connections of one run of a deadletters command.
type session struct {
	store    *deadletter.Store
	redriver *redrive.Redriver
	close    func() error
}

func openSession(ctx context.Context, environ []string, stderr io.Writer) (*session, error) {
	c, err := config.Load[deadLettersConfig](environ)
	if err != nil {
		return nil, err
	}
	c.LogFormat = "text"
	client, err := connect(ctx, c.Deployment)
	if err != nil {
		return nil, err
	}
	b, err := bus.Open(ctx, c.Deployment, "operator", telemetry.NewLogger(stderr, c.Deployment, false))
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	deadLetters := deadletter.NewStore(client, time.Now)
	ledger := delivery.NewLedger(client, "operator", time.Now)
	return &session{
		store:    deadLetters,
		redriver: redrive.New(client, deadLetters, ledger, delivery.NewSender(ledger, b, c.Config, time.Now), b, c.Config),
		close:    func() error { return errors.Join(b.Close(), client.Close()) },
	}, nil
}

func listDeadLetters(environ []string) *cobra.Command {
	var s selection
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, the latest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			filter, err := s.parse(nil, time.Now())
			if err != nil {
				return err
			}
			session, err := openSession(cmd.Context(), environ, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, session.close()) }()
			out := cmd.OutOrStdout()
			if asJSON {
				enc := json.NewEncoder(out)
				return session.store.List(cmd.Context(), filter, func(l deadletter.DeadLetter) error { return enc.Encode(newView(l)) })
			}
			tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "ID\tAT\tSTATUS\tATTEMPTS\tREASON\tSOURCE\tCORRELATION\tERROR")
			n := 0
			err = session.store.List(cmd.Context(), filter, func(l deadletter.DeadLetter) error {
				n++
				_, err := fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", l.ID, l.At.Local().Format(time.DateTime), l.Status, l.Attempts, l.Reason, l.Source, l.CorrelationID, shorten(l.Message))
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
	cmd.Flags().StringVar(&s.status, "status", string(deadletter.Unfinished), "unfinished (open or redriving), open, redriving, redriven or all")
	cmd.Flags().IntVar(&s.limit, "limit", 100, "maximum number of dead letters; 0 for no limit")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object per line")
	return cmd
}

// shorten makes a text one line of at most 80 characters.
func shorten(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 80 {
		return string(r[:79]) + "…"
	}
	return s
}

// view is the JSON form of a dead letter. Event holds the message if the message is JSON; Preview shows any other
// message.
type view struct {
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

func newView(l deadletter.DeadLetter) view {
	v := view{
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

func showDeadLetter(environ []string) *cobra.Command {
	var raw bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one dead letter with its whole event",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			session, err := openSession(cmd.Context(), environ, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, session.close()) }()
			l, err := session.store.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if raw {
				_, err := cmd.OutOrStdout().Write(l.Data)
				return err
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(newView(l))
		},
	}
	cmd.Flags().BoolVar(&raw, "raw", false, "print only the bytes of the message")
	return cmd
}

func redriveDeadLetters(environ []string) *cobra.Command {
	var s selection
	var o redrive.Options
	cmd := &cobra.Command{
		Use:   "redrive [ID...]",
		Short: "Send dead letters again, each once",
		RunE: func(cmd *cobra.Command, ids []string) (err error) {
			if err := s.require(ids); err != nil {
				return err
			}
			if o.Selection, err = s.parse(ids, time.Now()); err != nil {
				return err
			}
			session, err := openSession(cmd.Context(), environ, cmd.ErrOrStderr())
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
	cmd.Flags().BoolVar(&s.all, "all", false, "redrive every open dead letter, and finish every interrupted redrive")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only print the selected dead letters")
	cmd.Flags().StringVar(&o.By, "by", loginName(), "name of the operator, stored with the change")
	cmd.Flags().Float64Var(&o.PerSecond, "rate", 10, "maximum number per second")
	return cmd
}

func purgeDeadLetters(environ []string) *cobra.Command {
	var s selection
	var yes bool
	cmd := &cobra.Command{
		Use:   "purge [ID...]",
		Short: "Delete dead letters",
		RunE: func(cmd *cobra.Command, ids []string) (err error) {
			if err := s.require(ids); err != nil {
				return err
			}
			filter, err := s.parse(ids, time.Now())
			if err != nil {
				return err
			}
			session, err := openSession(cmd.Context(), environ, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, session.close()) }()
			n := 0
			err = session.store.List(cmd.Context(), filter, func(l deadletter.DeadLetter) error {
				n++
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s\n", l.ID, l.Reason, l.CorrelationID)
				if !yes {
					return nil
				}
				return session.store.Purge(cmd.Context(), l)
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
	cmd.Flags().StringVar(&s.status, "status", "all", "unfinished (open or redriving), open, redriving, redriven or all")
	cmd.Flags().BoolVar(&s.all, "all", false, "select every dead letter")
	cmd.Flags().BoolVar(&yes, "yes", false, "delete; without this flag only print the selection")
	return cmd
}
