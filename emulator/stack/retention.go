package stack

import (
	"fmt"
	"slices"
	"time"

	"parley.internal/emulator/firestore"
	"parley.internal/functions/dlq"
	"parley.internal/shared/config"
	"parley.internal/shared/store"
)

// sweepMargin is the time for the sweep of an overdue delivery after the tick, with some failed attempts.
const sweepMargin = time.Minute

// ttlPolicies returns the policies of [store.Collections], as Terraform sets them in the cloud. A document made for an
// event lives at most for the retention after its last write. Zero means no such limit.
func ttlPolicies(retention time.Duration) []firestore.TTLPolicy {
	var policies []firestore.TTLPolicy
	for _, c := range store.Collections {
		if c.TTLField == "" {
			continue
		}
		p := firestore.TTLPolicy{Collection: c.Name, Field: c.TTLField}
		if c.PerEvent {
			p.Limit = retention
		}
		policies = append(policies, p)
	}
	return policies
}

// checkRetention returns an error if a delivery could be deleted before the sweep has recorded its outcome. Zero means no
// limit. environ is the environment of the parts; sweep is the interval of the sweep.
func checkRetention(retention, sweep time.Duration, environ []string) error {
	if retention == 0 {
		return nil
	}
	c, err := config.Load[dlq.Config](append(slices.Clone(environ), "GOOGLE_CLOUD_PROJECT="+project))
	if err != nil {
		return fmt.Errorf("%s: %w", dlq.Step, err)
	}
	if least := c.Egress.Deadline + c.SweepGrace + sweep + sweepMargin; retention < least {
		return fmt.Errorf("--retention: %s is less than %s, the time until an undelivered answer is dead-lettered: EGRESS_DEADLINE (%s), SWEEP_GRACE (%s), --sweep (%s) and %s",
			retention, least, c.Egress.Deadline, c.SweepGrace, sweep, sweepMargin)
	}
	return nil
}
