package config_test

import (
	"errors"
	"fmt"
	"os"
	"time"

	"parley.internal/shared/config"
)

// Limits is the configuration of a part.
type Limits struct {
	PerMinute int           `env:"LIMIT_PER_MINUTE" envDefault:"20" help:"Messages of one user in a minute."`
	Wait      time.Duration `env:"LIMIT_WAIT" envDefault:"5s" help:"Maximum wait for a free slot."`
	Key       string        `env:"LIMIT_KEY,required" help:"Key of the limiter."`
}

func (l Limits) Validate() error {
	if l.PerMinute <= 0 {
		return errors.New("LIMIT_PER_MINUTE: must be positive")
	}
	return nil
}

func ExampleLoad() {
	limits, err := config.Load[Limits]([]string{"LIMIT_KEY=k", "LIMIT_WAIT=1m"}) // os.Environ() in a real program
	fmt.Println(limits.PerMinute, limits.Wait, err)
	// Output: 20 1m0s <nil>
}

// One error reports every wrong variable.
func ExampleLoad_errors() {
	_, err := config.Load[Limits]([]string{"LIMIT_WAIT=soon", "LIMIT_PER_MINUTE=0"})
	fmt.Println(err)
	// Output:
	// configuration:
	// LIMIT_WAIT: not a duration such as 30s or 5m: unable to parse duration: time: invalid duration "soon"
	// LIMIT_KEY: required, but not set
	// LIMIT_PER_MINUTE: must be positive
}

func ExampleUsage() {
	if err := config.Usage[Limits](os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	//   LIMIT_PER_MINUTE  Messages of one user in a minute. Default: 20.
	//   LIMIT_WAIT        Maximum wait for a free slot. Default: 5s.
	//   LIMIT_KEY         Key of the limiter. Required.
}
