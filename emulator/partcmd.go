package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"parley.internal/emulator/soak"
	"parley.internal/emulator/stack"
	"parley.internal/gateway/instance"
	"parley.internal/shared/config"
	"parley.internal/shared/telemetry"
)

// partCommand runs one part of Parley in a separate process. The soak kills and restarts such processes.
func partCommand(stdout, stderr *os.File, environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "part", Short: "Run one part as a process", Hidden: true, Args: cobra.NoArgs,
		PersistentPreRun: func(*cobra.Command, []string) {
			// The parent process holds the other end of the standard input. If the parent ends, the part ends too.
			go func() {
				_, err := io.Copy(io.Discard, os.Stdin)
				telemetry.NewLogger(stderr, config.Deployment{LogFormat: "json", LogLevel: "info"}, false).Info("parent process ended", "error", err)
				os.Exit(1)
			}()
		},
	}
	var skew time.Duration
	gateway := &cobra.Command{
		Use: "gateway", Short: "One gateway instance", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load[instance.Config](environ)
			if err != nil {
				return err
			}
			gw, err := instance.Start(cmd.Context(), c, instance.Options{
				Log: telemetry.NewLogger(stderr, c.Deployment, false),
				Now: func() time.Time { return time.Now().Add(skew) },
			})
			if err != nil {
				return err
			}
			printed := json.NewEncoder(stdout).Encode(soak.Ready{ID: gw.ID(), Addr: gw.Addr()})
			return errors.Join(printed, gw.Run(cmd.Context()))
		},
	}
	gateway.Flags().DurationVar(&skew, "skew", 0, "how far the gateway's clock is ahead")
	var listen string
	function := &cobra.Command{
		Use: "function NAME", Short: "One function", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return stack.ServeFunction(args[0], listen) },
	}
	function.Flags().StringVar(&listen, "listen", "", "`HOST:PORT`")
	cmd.AddCommand(gateway, function)
	return cmd
}
