"""Mirror a study to MLflow. The study's files decide; the runs in MLflow are copies for looking at."""
