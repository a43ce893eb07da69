package lease

import (
	"errors"
	"fmt"
	"time"
)

// Config sets how fast leases move between instances. After a crash, other instances can claim the leases within TTL
// plus Heartbeat.
//
// Per Heartbeat, a session costs a write, and a read for each session. Two instances at 2.5 s make about 70,000
// writes and 140,000 reads a day. The number of keys does not matter.
type Config struct {
	TTL        time.Duration `env:"LEASE_TTL" envDefault:"10s" help:"An instance loses its channels after this time without a heartbeat in Firestore."`
	Heartbeat  time.Duration `env:"LEASE_BEAT" envDefault:"2500ms" help:"Interval between two heartbeats of an instance. With each, the instance also reads the sessions of all instances."`
	MaxMembers int           `env:"LEASE_SEATS" envDefault:"8" help:"Maximum number of instances that share the channels; further instances wait until a member leaves. Every instance reads the heartbeats of all members, so the cost grows with the square."`
}

// Validate checks the ranges and combinations of the values.
func (c Config) Validate() error {
	var errs []error
	if c.Heartbeat < time.Millisecond || c.TTL < 3*c.Heartbeat {
		errs = append(errs, fmt.Errorf("LEASE_BEAT: %s is not between 1ms and a third of LEASE_TTL (%s)", c.Heartbeat, c.TTL))
	}
	if c.MaxMembers < 1 || c.MaxMembers > 500 {
		errs = append(errs, fmt.Errorf("LEASE_SEATS: %d is not between 1 and 500", c.MaxMembers))
	}
	return errors.Join(errs...)
}

// Margin is the safety margin of a session: the instance treats the leases as lost this long before other instances
// may claim the keys. The margin must exceed the drift between two clocks within a TTL, and the time between a call of
// [Lease.Valid] and the action after the call.
func (c Config) Margin() time.Duration { return c.TTL / 5 }
