// Package identities is the command with which an operator says that ids of several platforms are one person's. It works
// against Google Cloud and, where FIRESTORE_EMULATOR_HOST is set, against an emulator.
package identities

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"parley.internal/shared/config"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// Command makes the command with its subcommands.
func Command(environ []string) *cobra.Command {
	var b strings.Builder
	b.WriteString(`Says which ids are one person's. A linked id keeps no roles, counts and memory of its own: those of the
person count, who is known by another id. Answers still go to the id that somebody is here by.

An id is written platform:id, twitch:123 for example. What is changed here shows within a minute, as long as the
functions remember links (IDENTITIES_CACHE_TTL).

Environment:
`)
	if err := config.Usage[config.Deployment](&b); err != nil {
		panic(err) // into memory
	}
	cmd := &cobra.Command{Use: "identities", Aliases: []string{"identity"}, Short: "Say which ids are one person's", Long: b.String()}
	cmd.AddCommand(linkCommand(environ), unlinkCommand(environ), listCommand(environ))
	return cmd
}

// with runs what needs the store.
func with(ctx context.Context, environ []string, do func(*store.Store) error) error {
	d, err := config.Load[config.Deployment](environ)
	if err != nil {
		return err
	}
	client, err := store.Connect(ctx, d)
	if err != nil {
		return err
	}
	if err := store.Reach(ctx, client); err != nil {
		return errors.Join(err, client.Close())
	}
	return errors.Join(do(store.New(client)), client.Close())
}

func linkCommand(environ []string) *cobra.Command {
	var by string
	cmd := &cobra.Command{
		Use:   "link ID PERSON",
		Short: "Make an id one of a person's",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err1 := identity.Parse(args[0])
			person, err2 := identity.Parse(args[1])
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			return with(cmd.Context(), environ, func(s *store.Store) error {
				l := store.Link{ID: id, User: person.String(), LinkedAt: event.TruncateToMicros(time.Now()), LinkedBy: by}
				if err := s.Link(cmd.Context(), l); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", id, person)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&by, "by", whoami(), "who decided, for the record")
	return cmd
}

func unlinkCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "unlink ID",
		Short: "Make an id a person of its own again",
		Long: `Makes an id a person of its own again, with what was known of it before it was linked. The roles that its platform
gave go from the person whose it was; what was counted stays theirs.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := identity.Parse(args[0])
			if err != nil {
				return err
			}
			return with(cmd.Context(), environ, func(s *store.Store) error {
				person, err := s.Unlink(cmd.Context(), id)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is no longer %s\n", id, person)
				return err
			})
		},
	}
}

func listCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "list [PERSON]",
		Short: "List the links, all or a person's",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var person identity.UserID
			if len(args) > 0 {
				var err error
				if person, err = identity.Parse(args[0]); err != nil {
					return err
				}
			}
			return with(cmd.Context(), environ, func(s *store.Store) error {
				links, err := s.Links(cmd.Context(), person)
				if err != nil {
					return err
				}
				tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(tw, "ID\tPERSON\tSINCE\tBY")
				for _, l := range links {
					since := "-" // written by hand
					if !l.LinkedAt.IsZero() {
						since = l.LinkedAt.Local().Format(time.DateTime)
					}
					fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", l.ID, l.User, since, l.LinkedBy)
				}
				return tw.Flush()
			})
		},
	}
}

func whoami() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}
