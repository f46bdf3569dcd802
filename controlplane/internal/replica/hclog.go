package replica

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// logger lets Raft and its log store write to a slog.Logger. What they call information is only of interest when something
// is looked into, so it becomes debug; what they call an error (a peer that does not answer) is a warning: they go on from
// it.
type logger struct {
	to   *slog.Logger
	name string
	with []any
}

func (l logger) Log(level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Off:
		return
	case hclog.Warn, hclog.Error:
		to = slog.LevelWarn
	}
	if !l.to.Enabled(context.Background(), to) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok { // a value that is to be formatted first
			args[i] = fmt.Sprintf(f[0].(string), f[1:]...)
		}
	}
	l.to.Log(context.Background(), to, msg, args...)
}

func (l logger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l logger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l logger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l logger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l logger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l logger) IsTrace() bool { return false }
func (l logger) IsDebug() bool { return l.to.Enabled(context.Background(), slog.LevelDebug) }
func (l logger) IsInfo() bool  { return l.IsDebug() }
func (l logger) IsWarn() bool  { return l.to.Enabled(context.Background(), slog.LevelWarn) }
func (l logger) IsError() bool { return l.IsWarn() }

func (l logger) ImpliedArgs() []any { return l.with }

func (l logger) With(args ...any) hclog.Logger {
	return logger{to: l.to.With(args...), name: l.name, with: append(l.with[:len(l.with):len(l.with)], args...)}
}

func (l logger) Name() string { return l.name }

func (l logger) Named(name string) hclog.Logger { return l.ResetNamed(name) }

func (l logger) ResetNamed(name string) hclog.Logger {
	return logger{to: l.to, name: name, with: l.with}
}

func (l logger) SetLevel(hclog.Level) {}

func (l logger) GetLevel() hclog.Level {
	switch {
	case l.IsDebug():
		return hclog.Debug
	case l.IsWarn():
		return hclog.Warn
	}
	return hclog.Error
}

func (l logger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.to.Handler(), slog.LevelDebug)
}

func (l logger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(o).Writer()
}
