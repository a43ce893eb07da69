package stack

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"

	"parley.internal/emulator/port"
	"parley.internal/functions/dlq"
	"parley.internal/functions/enrichment"
	"parley.internal/functions/personality"
	"parley.internal/functions/whisper"
	"parley.internal/gateway/instance"
	"parley.internal/shared/config"
)

// served lists the functions linked into this program, by their names in the topology.
var served = map[string]bool{dlq.Step: true, enrichment.Step: true, personality.Step: true, whisper.Step: true}

// parts lists the configurations of all parts.
var parts = []struct {
	name  string
	usage func(io.Writer) error
	check func(environ []string) error
}{
	{enrichment.Step, config.Usage[enrichment.Config], check[enrichment.Config]},
	{personality.Step, config.Usage[personality.Config], check[personality.Config]},
	{whisper.Step, config.Usage[whisper.Config], check[whisper.Config]},
	{dlq.Step, config.Usage[dlq.Config], check[dlq.Config]},
	{"gateway", config.Usage[instance.Config], check[instance.Config]},
}

func check[T any](environ []string) error {
	_, err := config.Load[T](environ)
	return err
}

// checkParts returns the errors in the configuration of any part. A function reads its configuration only at the first
// request, and would answer every request with an error.
func checkParts(environ []string) error {
	for _, p := range parts {
		if err := p.check(environ); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// Usage explains the environment variables of every part.
func Usage(w io.Writer) error {
	for i, p := range parts {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s:\n", p.name)
		if err := p.usage(w); err != nil {
			return err
		}
	}
	return nil
}

// serveFunctions starts the functions framework's own HTTP server with every function under its name, and returns the
// address. The framework accepts no listener and cannot be stopped: a process has one such server, and the server ends
// with the process.
func serveFunctions(ctx context.Context) (addr string, err error) {
	if addr, err = port.Free(); err != nil {
		return "", fmt.Errorf("find a port for the functions: %w", err)
	}
	host, number, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("find a port for the functions: %w", err)
	}
	failed := make(chan error, 1)
	go func() { failed <- funcframework.StartHostPort(host, number) }()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
		if err != nil {
			return "", fmt.Errorf("wait for the functions: %w", err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			return addr, resp.Body.Close()
		}
		select {
		case err := <-failed:
			return "", fmt.Errorf("serve the functions: %w", err)
		case <-ctx.Done():
			return "", fmt.Errorf("wait for the functions: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ServeFunction serves one function at the path /, on the functions framework's own server. The server cannot be
// stopped: ServeFunction returns only on failure, and otherwise the process must be ended.
func ServeFunction(name, addr string) error {
	if !served[name] {
		return fmt.Errorf("there is no function %q", name)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("serve the function %s: %w", name, err)
	}
	// the framework reads this variable, as in the cloud
	if err := os.Setenv("FUNCTION_TARGET", name); err != nil {
		return fmt.Errorf("serve the function %s: %w", name, err)
	}
	return fmt.Errorf("serve the function %s: %w", name, funcframework.StartHostPort(host, port))
}
