// Package provider contains fake Terraform providers for Google Cloud and for archives. The fakes need no registry
// and no account. Start with [Serve].
//
// The fakes have the schema of the real providers (package schema). Terraform therefore finds a wrong argument, a missing
// argument, a wrong type or an undeclared reference. In a plan, computed values are unknown.
// An apply invents values in Google's formats, and creates nothing. The archive provider writes real archives.
// The tests of package check cover the package: they run Terraform with the fakes.
package provider

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"parley.internal/terraform/check/schema"
)

// Serve serves both providers inside this process until ctx is done. The result is the value of the variable
// TF_REATTACH_PROVIDERS: Terraform connects to these servers, and starts no provider programs. Programs would start six
// times for each plan and take half of the plan's time.
//
// dir is the folder of the run: the archive provider resolves relative paths there.
func Serve(ctx context.Context, dir string) (string, error) {
	google, err := schema.Google()
	if err != nil {
		return "", err
	}
	archive, err := schema.Archive()
	if err != nil {
		return "", err
	}
	reattach := map[string]reattachConfig{}
	for name, p := range map[string]*provider{
		"hashicorp/google":  {schema: google, compute: computeGoogle, deny: denyGoogle, refuse: refuseGoogle},
		"hashicorp/archive": {schema: archive, read: func(_ string, o map[string]tftypes.Value) (map[string]any, error) { return zipFile(dir, o) }},
	} {
		c, err := serve(ctx, name, p)
		if err != nil {
			return "", err
		}
		reattach[name] = c
	}
	data, err := json.Marshal(reattach)
	if err != nil {
		return "", err
	}
	return string(data), nil
}

// serve serves one provider until ctx is done. It works like tf5server.Serve, but its gRPC server identifies
// connections.
func serve(ctx context.Context, name string, p *provider) (reattachConfig, error) {
	config := make(chan *plugin.ReattachConfig, 1)
	done := make(chan struct{})
	go plugin.Serve(&plugin.ServeConfig{ // ends with ctx, and closes done
		HandshakeConfig: plugin.HandshakeConfig{ProtocolVersion: 5},
		Plugins:         plugin.PluginSet{"provider": &tf5server.GRPCProviderPlugin{Name: name, GRPCProvider: func() tfprotov5.ProviderServer { return p }}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.StatsHandler(connections{}), grpc.MaxRecvMsgSize(64<<20))...)
		},
		Logger: hclog.NewNullLogger(),
		Test:   &plugin.ServeTestConfig{Context: ctx, ReattachConfigCh: config, CloseCh: done},
	})
	select {
	case c := <-config:
		return reattachConfig{
			Protocol: string(c.Protocol), ProtocolVersion: c.ProtocolVersion, Pid: c.Pid, Test: c.Test,
			Addr: reattachAddr{Network: c.Addr.Network(), String: c.Addr.String()},
		}, nil
	case <-done:
		return reattachConfig{}, errors.New("serve the provider " + name + ": no listener")
	}
}

// reattachConfig is one entry of TF_REATTACH_PROVIDERS
// (https://developer.hashicorp.com/terraform/plugin/debugging#starting-a-provider-in-debug-mode).
type reattachConfig struct {
	Protocol        string
	ProtocolVersion int
	Pid             int
	Test            bool
	Addr            reattachAddr
}

type reattachAddr struct {
	Network string
	String  string
}

// connection is the state of one connection. Terraform connects once for every "provider" block of a configuration.
type connection struct {
	config map[string]string // the arguments of the block: every string, and "true" for every true
}

// connections gives each connection of a gRPC server its own [connection].
type connections struct{}

type connectionKey struct{}

// connectionOf returns the connection of a request.
func connectionOf(ctx context.Context) *connection { return ctx.Value(connectionKey{}).(*connection) }

func (connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, connectionKey{}, &connection{})
}

func (connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (connections) HandleConn(context.Context, stats.ConnStats)                     {}
func (connections) HandleRPC(context.Context, stats.RPCStats)                       {}
