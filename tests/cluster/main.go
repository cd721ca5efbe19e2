// Command kubernetes is a whole Kubernetes in one file: etcd, the control plane, the kubelet and kubectl.
//
// The tests start real components, and a registry of Go modules is the one place where they can be had on every
// machine. One binary links in a fifth of the time that five would, and weighs 130 MB instead of 500. Which component
// it is decides the name it is started by (a symbolic link), or else its first argument.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	_ "time/tzdata" // CronJobs with a timeZone, on hosts without zone files

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	if !run(filepath.Base(os.Args[0])) {
		if len(os.Args) > 1 {
			os.Args = os.Args[1:]
			if run(os.Args[0]) {
				return
			}
		}
		fmt.Fprintln(os.Stderr, "usage: etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubelet|kubectl [flags]")
		os.Exit(2)
	}
}

// run is the component of that name, and false when there is none. The server commands end the process themselves.
func run(component string) bool {
	switch component {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		serve(apiserver.NewAPIServerCommand())
	case "kube-controller-manager":
		serve(controllermanager.NewControllerManagerCommand())
	case "kube-scheduler":
		serve(scheduler.NewSchedulerCommand())
	case "kubelet":
		serve(kubelet.NewKubeletCommand(context.Background()))
	case "kubectl":
		// As cmd/kubectl does: verbosity must hold before the command is built (plugins, .kuberc).
		logs.GlogSetter(kubectl.GetLogVerbosity(os.Args))
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlutil.CheckErr(err)
		}
	default:
		return false
	}
	return true
}

func serve(command *cobra.Command) {
	os.Exit(cli.Run(command))
}
