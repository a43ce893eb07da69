// Command gateway runs one gateway instance, as Cloud Run does. It is configured by environment variables alone:
// gateway --help lists them.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"parley.internal/gateway/deadletters"
	"parley.internal/gateway/identities"
	"parley.internal/gateway/instance"
	"parley.internal/shared/config"
	"parley.internal/shared/telemetry"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

// run is the whole command; it returns when ctx is done and everything is drained, or with the first error.
func run(ctx context.Context, args, environ []string, stdout io.Writer) error {
	root, err := command(environ, stdout)
	if err != nil {
		return err
	}
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

func command(environ []string, stdout io.Writer) (*cobra.Command, error) {
	var usage strings.Builder
	if err := config.Usage[instance.Config](&usage); err != nil {
		return nil, err
	}
	root := &cobra.Command{
		Use:   "gateway",
		Short: "Hold clients' sockets: serve one gateway instance",
		Long: `Serves one gateway instance until it is told to stop (SIGINT, SIGTERM); then it drains for at most 8 seconds.

  /          a chat page
  /ws/v1     WebSocket clients
  /healthz   the process lives
  /readyz    clients should be sent here
  /metrics   for Prometheus

Environment:
` + usage.String(),
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), environ, stdout)
		},
	}
	root.AddCommand(identities.Command(environ))
	root.AddCommand(deadletters.Command(environ))
	guide(root)
	root.SetOut(stdout)
	root.CompletionOptions.DisableDefaultCmd = true
	return root, nil
}

// guide makes every command that is called in a wrong way fail and say how it is called. By itself, a command that only
// has others below it prints its help for a name that there is not, and succeeds.
func guide(cmd *cobra.Command) {
	if !cmd.Runnable() {
		cmd.Args = cobra.NoArgs
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return fmt.Errorf("%w; usage: %s (see --help)", err, strings.TrimSuffix(cmd.UseLine(), " [flags]"))
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		guide(sub)
	}
}

func serve(ctx context.Context, environ []string, stdout io.Writer) error {
	c, err := config.Load[instance.Config](environ)
	if err != nil {
		return err
	}
	gw, err := instance.Start(ctx, c, instance.Options{Log: telemetry.NewLogger(stdout, c.Deployment, false)})
	if err != nil {
		return err
	}
	return gw.Run(ctx)
}
