// Package soak runs Parley as processes, injects faults for a while, and then audits the outcome: every answer must be
// delivered or dead-lettered, exactly once.
//
// [RunClients] lets WebSocket users ask questions, and [RunPlatforms] lets people ask on fakes of Twitch and Discord.
// Both use the same harness: gateways and functions are processes, and faults kill or stop these processes. The embedded
// Pub/Sub and Firestore run in this process, with faults in their answers. Every connection of a gateway leads through a
// proxy that can be cut. The gateways' clocks are wrong by up to [Pace].Skew. [Kinds] and [PlatformKinds] list the faults.
// The same seed draws the same sequence of faults.
//
// The files: harness.go, servers.go and parts.go run the system, fault.go, inject.go and break.go break it, clients.go
// and platforms.go drive the load, the audit files judge, and report.go prints.
//
// The audit looks from outside only. It compares the frames received by clients, the lines posted on platforms and the
// documents in Firestore with the questions accepted by the ingress topic. For clients the audit relies on conditions of
// the protocol:
//
//   - A client that reconnects names its last answers, and had an answer before the first fault. A client without any
//     answer cannot say where to resume, so it acknowledges its first answer.
//   - A client with a broken connection reconnects within the deadline of its answers plus the sweep's grace. A client
//     that leaves for good stops reading before the end: an answer read by the client and not recorded by a killed
//     gateway would be dead-lettered.
//   - Clocks differ by less than the sweep's grace minus the longest pause of a gateway.
package soak

import (
	"context"
	"fmt"
	"os"
	"time"

	"parley.internal/emulator/stack"
)

// project is the project of all resources of a soak. No cloud project needs to exist.
const project = "parley-soak"

// Common holds the options that [RunClients] and [RunPlatforms] share.
type Common struct {
	Binary    string     // path of the emulator's executable, for example from [Executable]
	Dir       string     // existing folder for the logs of the parts, and for the key of the credentials
	Environ   []string   // environment of the parts, in the form of os.Environ
	Seed      uint64     // of the faults
	Gateways  int        // running at a time
	Faults    int        // least number of faults
	Bounded   bool       // Faults is also the largest number of faults
	Documents stack.Seed // rules and personalities; "!ask …" must get an answer
	Progress  func(Progress)
}

// Pace holds the durations of a soak.
type Pace struct {
	Gap      time.Duration // average time between the beginnings of two faults
	Longest  time.Duration // longest fault
	Skew     time.Duration // largest error of a gateway's clock, in either direction
	Deadline time.Duration // EGRESS_DEADLINE
	Grace    time.Duration // SWEEP_GRACE; more than Skew and Longest together
	Sweep    time.Duration // between two sweep ticks
	Patience time.Duration // a client reconnects after this time without a frame
}

// Progress describes the progress of a soak.
type Progress struct {
	Phase                   string
	Asked, Answered, Faults int
}

// Executable returns the path of the running program, for Common.Binary.
func Executable() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the running program: %w", err)
	}
	return path, nil
}

// execute starts a soak, runs it, and audits it.
func execute[R any](ctx context.Context, start, run func(context.Context) error, audit func(context.Context) (*R, error)) (*R, error) {
	if err := start(ctx); err != nil {
		return nil, fmt.Errorf("soak: %w", err)
	}
	if err := run(ctx); err != nil {
		return nil, fmt.Errorf("soak: %w", err)
	}
	report, err := audit(ctx)
	if err != nil {
		return nil, fmt.Errorf("soak: %w", err)
	}
	return report, nil
}
