// Command gateway runs one gateway instance, and the operators' commands deadletters and identities. Environment
// variables are the only configuration; see gateway --help. Cloud Run starts this command without arguments.
//
// Start at package instance for a gateway instance, and at package operator for the commands. Package main decides
// nothing: it handles signals, parses the command line and prints the error.
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

	"parley.internal/gateway/instance"
	"parley.internal/gateway/operator"
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

// run executes the command line. A gateway instance runs until ctx is done and the instance is drained, or until the
// first error.
func run(ctx context.Context, args, environ []string, stdout io.Writer) error {
	root, err := command(environ, stdout)
	if err != nil {
		return err
	}
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// command builds the command line.
func command(environ []string, stdout io.Writer) (*cobra.Command, error) {
	var usage strings.Builder
	if err := config.Usage[instance.Config](&usage); err != nil {
		return nil, err
	}
	root := &cobra.Command{
		Use:   "gateway",
		Short: "Serve one gateway instance",
		Long: `Serves one gateway instance until SIGINT or SIGTERM, then drains for at most 8 seconds.

  /          the chat page
  /ws/v1     WebSocket clients
  /healthz   liveness: the process runs
  /readyz    readiness: the load balancer may send clients
  /metrics   Prometheus metrics, with the token in METRICS_TOKEN; without that variable, 404

Environment:
` + usage.String(),
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), environ, stdout)
		},
	}
	root.AddCommand(operator.Identities(environ), operator.DeadLetters(environ))
	explainMisuse(root)
	root.SetOut(stdout)
	root.CompletionOptions.DisableDefaultCmd = true
	return root, nil
}

// explainMisuse makes every misused command fail with its usage line. By default, cobra prints the help of a parent
// command and succeeds if the name of the subcommand is unknown.
func explainMisuse(cmd *cobra.Command) {
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
		explainMisuse(sub)
	}
}

// serve runs a gateway instance until ctx is done.
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
