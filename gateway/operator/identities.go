package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"parley.internal/shared/config"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// Identities makes the command identities with its subcommands link, unlink and list.
func Identities(environ []string) *cobra.Command {
	var b strings.Builder
	b.WriteString(`Links ids of several platforms to one person. A person is named by one of the ids. A linked id has no roles, counts
and memory of its own: Parley uses those of the person. Answers still go to the id that wrote the message.

An id has the form platform:id, for example twitch:123. The functions use a change after at most
IDENTITIES_CACHE_TTL, one minute by default.

Environment:
`)
	if err := config.Usage[config.Deployment](&b); err != nil {
		panic(err) // writes to memory and cannot fail
	}
	cmd := &cobra.Command{Use: "identities", Aliases: []string{"identity"}, Short: "Link several ids to one person", Long: b.String()}
	cmd.AddCommand(linkIdentity(environ), unlinkIdentity(environ), listIdentities(environ))
	return cmd
}

// withStore connects to Firestore, calls do, and disconnects.
func withStore(ctx context.Context, environ []string, do func(*store.Store) error) error {
	d, err := config.Load[config.Deployment](environ)
	if err != nil {
		return err
	}
	client, err := connect(ctx, d)
	if err != nil {
		return err
	}
	return errors.Join(do(store.New(client)), client.Close())
}

func linkIdentity(environ []string) *cobra.Command {
	var by string
	cmd := &cobra.Command{
		Use:   "link ID PERSON",
		Short: "Link an id to a person",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err1 := identity.Parse(args[0])
			person, err2 := identity.Parse(args[1])
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			return withStore(cmd.Context(), environ, func(s *store.Store) error {
				l := store.Link{ID: id, User: person.String(), LinkedAt: event.TruncateToMicros(time.Now()), LinkedBy: by}
				if err := s.Link(cmd.Context(), l); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", id, person)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&by, "by", loginName(), "name of the operator, stored with the link")
	return cmd
}

func unlinkIdentity(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "unlink ID",
		Short: "Remove the link of an id",
		Long: `Removes the link of an id. The id has again the roles, counts and memory from before the link. The person loses the
roles given by the id's platform and keeps the counts.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := identity.Parse(args[0])
			if err != nil {
				return err
			}
			return withStore(cmd.Context(), environ, func(s *store.Store) error {
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

func listIdentities(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "list [PERSON]",
		Short: "List all links, or the links of one person",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var person identity.UserID
			if len(args) > 0 {
				var err error
				if person, err = identity.Parse(args[0]); err != nil {
					return err
				}
			}
			return withStore(cmd.Context(), environ, func(s *store.Store) error {
				links, err := s.Links(cmd.Context(), person)
				if err != nil {
					return err
				}
				tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(tw, "ID\tPERSON\tSINCE\tBY")
				for _, l := range links {
					since := "-" // an operator wrote the document by hand
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
