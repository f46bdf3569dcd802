package cli

import (
	"errors"
	"time"

	"github.com/spf13/cobra"
)

// lifetimeFlag adds a flag of how long something lasts. What is no time at all is refused, so that nothing lasts for ever by a slip.
func lifetimeFlag(cmd *cobra.Command, into *time.Duration, name string, usual time.Duration, usage string) {
	*into = usual
	cmd.Flags().Var((*lifetime)(into), name, usage)
}

type lifetime time.Duration

func (l *lifetime) String() string {
	if *l == 0 {
		return ""
	}
	return time.Duration(*l).String()
}

func (l *lifetime) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err == nil && d < time.Second { // the API counts seconds
		err = errors.New("it is shorter than a second")
	}
	*l = lifetime(d)
	return err
}

func (*lifetime) Type() string { return "duration" }
