"""The four metrics of one run, train and test in each panel, on a screen: what a run ends with."""



