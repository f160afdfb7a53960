"""What a run would take before anyone rents the machines: time, memory, money. No torch."""

from fathom.plan.cluster import Cluster as Cluster
from fathom.plan.cluster import load_cluster as load_cluster
from fathom.plan.train import TrainPlan as TrainPlan
from fathom.plan.train import plan_train as plan_train
