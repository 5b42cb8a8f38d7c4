import java.io.File;
import java.lang.instrument.Instrumentation;
import java.util.jar.JarFile;

/**
 * Starts Beam's job server for a cluster that has these jars in its own class path: Beam looks into the class path for
 * what to upload with a job (150 MB, for half a minute), and does not see what an agent has added to it.
 */
public final class Start {
  private Start() {}

  /** Called before main: the manifest names this class as Launcher-Agent-Class. */
  public static void agentmain(String args, Instrumentation jvm) throws Exception {
    File here = new File(Start.class.getProtectionDomain().getCodeSource().getLocation().toURI());
    for (File jar : new File(here.getParentFile(), "lib").listFiles()) jvm.appendToSystemClassLoaderSearch(new JarFile(jar));
  }

  public static void main(String[] args) throws Exception {
    Class.forName("org.apache.beam.runners.flink.FlinkJobServerDriver")
        .getMethod("main", String[].class).invoke(null, (Object) args);
  }
}
